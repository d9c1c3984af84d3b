// The relay dialect: topics by name, which keep nothing. Knows its frames.

import { Connection } from './connection.js';
import { Emitter } from './emitter.js';
import { TidegateError, checked, refusal, toJson } from './errors.js';

/** A topic that this connection hears, or asks to hear. */
class Heard {
  listeners = new Set();
  waiting = new Set(); // of those who subscribed and have no answer yet
  isOn = false;
  extras = {};
}

export class RelayClient extends Connection {
  #topics = new Map();
  #asked = new Map(); // how many `subscribe` of a topic have no answer yet: answers keep the order

  constructor(url, options = {}) {
    super(url, 'tidegate.relay.v1', options);
  }

  /**
   * Hears a topic, from now on and after every reconnect. Resolves when the server has agreed,
   * or rejects when it refuses or does not answer.
   */
  subscribe(topic, listener, { presence, last, timeoutMs, signal } = {}) {
    const waiting = this._waiting();
    if (this.state === 'closed') waiting.reject(this._gone());
    else if (signal?.aborted) waiting.reject(signal.reason);
    else if (typeof topic !== 'string') waiting.reject(new TidegateError('invalid_message', 'a topic is a string'));
    if (waiting.isSettled) return waiting.promise;
    const isNew = !this.#topics.has(topic);
    if (isNew && this.options.queueMax <= this.#topics.size) waiting.reject(this._overloaded());
    if (waiting.isSettled) return waiting.promise;
    if (isNew) this.#topics.set(topic, new Heard());
    const heard = this.#topics.get(topic);
    const subscription = new RelaySubscription(topic, () => this.#leave(topic, subscription));
    if (listener) subscription.on('message', listener);
    heard.listeners.add(subscription);
    heard.waiting.add(waiting);
    waiting.subscription = subscription;
    const wanted = { ...(presence && { presence: true }), ...(last && { last: true }) };
    const asksMore = Object.keys(wanted).some((key) => !heard.extras[key]);
    Object.assign(heard.extras, wanted);
    this.#limit(waiting, heard, timeoutMs, signal);
    if (isNew || asksMore) this.#ask(topic);
    else if (heard.isOn) this.#agreed(heard);
    return waiting.promise;
  }

  #limit(waiting, heard, timeoutMs, signal) {
    const key = this.isOpen ? 'requestMsMax' : 'offlineMsMax';
    const ms = timeoutMs ?? this.options[key];
    const { subscription } = waiting;
    waiting.finally(() => {
      heard.waiting.delete(waiting);
      if (!waiting.isAgreed) subscription.unsubscribe();
    });
    waiting.within(ms, () => this._late(`a subscribe to ${subscription.topic}`, key, ms)).follow(signal);
  }

  /** Gives a message to the topic's handler. False where there is no connection: nothing waits. */
  send(topic, event, payload = null) {
    return this._send(toJson({ type: 'message', topic, event, payload: checked(payload) }));
  }

  /** Pushes over REST: also to topics that this client does not hear. */
  push(topic, event, payload = null, options = {}) {
    return this.rest.push(topic, event, payload, options);
  }

  /** Who is present. */
  presence(topic, options = {}) {
    return this.rest.presence(topic, options);
  }

  #ask(topic) {
    const frame = { type: 'subscribe', topic, ...this.#topics.get(topic).extras };
    if (this._send(JSON.stringify(frame))) this.#asked.set(topic, (this.#asked.get(topic) ?? 0) + 1);
  }

  /** Whether this is the answer to the last `subscribe` of the topic. */
  #isLast(topic) {
    const left = (this.#asked.get(topic) ?? 1) - 1;
    if (0 < left) this.#asked.set(topic, left);
    else this.#asked.delete(topic);
    return left <= 0;
  }

  #leave(topic, subscription) {
    const heard = this.#topics.get(topic);
    if (!heard?.listeners.delete(subscription) || heard.listeners.size) return;
    this.#topics.delete(topic);
    this._send(JSON.stringify({ type: 'unsubscribe', topic }));
  }

  _pingFrame() {
    return '{"type":"ping"}';
  }

  _handleOpen() {
    for (const topic of this.#topics.keys()) this.#ask(topic);
  }

  _handleFrame(frame) {
    const heard = this.#topics.get(frame.topic);
    switch (frame.type) {
      case 'push':
        for (const one of [...(heard?.listeners ?? [])]) one._tell('message', frame);
        break;
      case 'presence':
      case 'lagged':
        for (const one of [...(heard?.listeners ?? [])]) {
          one._tell(frame.type, frame.type === 'lagged' ? frame.missed : frame);
        }
        this._tell(frame.type, frame);
        break;
      case 'subscribed':
        if (this.#isLast(frame.topic) && heard) this.#agreed(heard);
        break;
      case 'pong':
        this._handlePong();
        break;
      case 'token_expiring':
        this._renewToken();
        break;
      case 'error':
        this.#refused(frame, heard);
        break;
      default: // `unsubscribed` tells nothing new; others are of a later version
    }
  }

  #agreed(heard) {
    heard.isOn = true;
    for (const waiting of [...heard.waiting]) {
      waiting.isAgreed = true;
      waiting.resolve(waiting.subscription);
    }
  }

  #refused(frame, heard) {
    const error = refusal(frame);
    const isAnswer = this.#asked.has(frame.topic) && error.code !== 'not_subscribed';
    if (isAnswer && this.#isLast(frame.topic) && heard && !heard.isOn) this.#end(frame.topic, heard, error);
    else this._tell('error', error);
  }

  /** Nobody hears this topic any longer: who waits is told by the promise, else it is an event. */
  #end(topic, heard, error) {
    this.#topics.delete(topic);
    const wasAwaited = 0 < heard.waiting.size;
    for (const waiting of [...heard.waiting]) waiting.reject(error);
    for (const one of heard.listeners) one._tell('end', error);
    if (!wasAwaited) this._tell('error', error);
  }

  _handleLost() {
    this.#asked.clear();
    for (const heard of this.#topics.values()) heard.isOn = false;
  }

  _handleEnd(error, isQuiet) {
    this._handleLost();
    for (const heard of this.#topics.values()) {
      for (const waiting of [...heard.waiting]) waiting.reject(error, isQuiet);
      for (const one of heard.listeners) one._tell('end', error);
    }
    this.#topics.clear();
  }
}

/** One listener to a relay topic. */
class RelaySubscription extends Emitter {
  #leave;

  constructor(topic, leave) {
    super();
    this.topic = topic;
    this.#leave = leave;
  }

  unsubscribe() {
    this.#leave();
  }
}
