// The event dialect: named events both ways, answers by `id`. Knows its frames.

import { Connection } from './connection.js';
import { Emitter } from './emitter.js';
import { TidegateError, disconnected, toJson } from './errors.js';

export class EventClient extends Connection {
  #requests = new Map();
  #events = new Emitter();
  #id = 0;

  constructor(url, options = {}) {
    super(url, 'tidegate.event.v1', options);
  }

  /** Hears an event of the server. `event` may be `*`, which hears all. */
  onEvent(event, listener) {
    return this.#events.on(event, listener);
  }

  /** Sends an event. False where there is no connection: nothing waits. */
  emit(event, data = null) {
    return this._send(framed(event, data));
  }

  /** Sends an event and waits for its answer. */
  request(event, data = null, { timeoutMs = this.options.requestMsMax, signal } = {}) {
    const waiting = this._waiting();
    const id = this.#id += 1;
    try {
      if (this.state === 'closed') throw this._gone();
      if (this.options.queueMax <= this.#requests.size) throw this._overloaded();
      const frame = framed(event, data, id);
      signal?.throwIfAborted();
      if (!this._send(frame)) throw disconnected();
    } catch (error) {
      waiting.reject(error);
      return waiting.promise;
    }
    this.#requests.set(id, waiting);
    waiting.finally(() => this.#requests.delete(id));
    waiting.within(timeoutMs, () => this._late(`\`${event}\``, 'requestMsMax', timeoutMs)).follow(signal);
    return waiting.promise;
  }

  /** Any answer will do, that of a server which knows no such event too. */
  _pingFrame() {
    return `{"event":"${PING}","data":null,"id":"${PING}"}`;
  }

  _handleOpen() {}

  _handleFrame(frame) {
    if (frame.event === PING && frame.id === PING) {
      this._handlePong();
      return;
    }
    const request = this.#requests.get(frame.id);
    const failure = frame.data?.error;
    if (request && typeof failure === 'string') {
      const { code = 'refused', errors } = frame.data;
      request.reject(new TidegateError(code, failure, { errors }));
    } else if (request) {
      request.resolve(frame.data);
    } else {
      this.#events._tell(frame.event, frame.data);
      this.#events._tell('*', frame.event, frame.data);
    }
  }

  _handleLost() {
    const error = disconnected('the connection was lost before the answer');
    for (const request of [...this.#requests.values()]) request.reject(error);
  }

  _handleEnd(error, isQuiet) {
    for (const request of [...this.#requests.values()]) {
      request.reject(disconnected('the connection was closed before the answer'), isQuiet);
    }
  }
}

function framed(event, data, id) {
  const head = toJson({ event, id }, 'the event');
  return `${head.slice(0, -1)},"data":${toJson(data, 'the data')}}`;
}

const PING = '$ping';
