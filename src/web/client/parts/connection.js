// One connection that comes back by itself. Knows sockets, time and tokens; the dialects, which are
// built on it, know what is said.

import { Emitter } from './emitter.js';
import {
  POLICY_CLOSES_MAX, TidegateError, afterClose, closed, disconnected, ended,
} from './errors.js';
import { DEFAULTS, backoffMs, tokenOf } from './options.js';
import { Rest } from './rest.js';
import { Waiting } from './waiting.js';

export class Connection extends Emitter {
  #socket;
  #timers = new Set();
  #attempt = 0;
  #opens = 0;
  #policyCloses = 0;
  #heard = false;
  #begun = false;
  #connects = new Set();
  #pings = [];
  #renewedAt = -Infinity;
  #renewTimer;

  constructor(url, protocol, options) {
    super();
    this.url = String(url);
    this.options = { ...DEFAULTS, ...options };
    this.protocol = protocol;
    this.state = 'idle';
    this._WebSocket = this.options.WebSocket ?? globalThis.WebSocket;
    if (!this._WebSocket) {
      throw new TidegateError('no_websocket', 'no global WebSocket: pass { WebSocket } of the package `ws`');
    }
    this.rest = new Rest(this.options.restUrl ?? url, this.options);
  }

  /**
   * Connects, and again whenever that is lost. Resolves when it is open. It rejects when that takes
   * longer than `connectMsMax`, and goes on trying all the same until `close()`.
   */
  connect({ timeoutMs = this.options.connectMsMax, signal } = {}) {
    // What nobody listens to here is told by `state`.
    const waiting = new Waiting((error) => this._tell('error', error));
    if (this.state === 'closed') waiting.reject(this._gone(), true);
    else if (this.isOpen) waiting.resolve();
    this.#connects.add(waiting);
    waiting.finally(() => this.#connects.delete(waiting));
    waiting.within(timeoutMs, () => this._late('a connection', 'connectMsMax', timeoutMs)).follow(signal);
    if (!this.#begun && this.state !== 'closed') {
      this.#begun = true;
      this.#open();
    }
    return waiting.promise;
  }

  /** Ends it for good. A socket takes only 1000 and 3000 to 4999, with a reason of 123 bytes. */
  close(code = 1000, reason = '') {
    const socket = this.#socket;
    this.#socket = undefined;
    const isOurs = code === 1000 || (3000 <= code && code <= 4999);
    closeSocket(socket, isOurs ? code : 1000, reason);
    this.#end(closed());
  }

  get isOpen() {
    // A listener of `close` hears before the state is another.
    return this.state === 'open' && this.#socket !== undefined && (this.#socket.readyState ?? OPEN) === OPEN;
  }

  /** How many milliseconds a question and its answer take. */
  async ping({ timeoutMs = this.options.requestMsMax, signal } = {}) {
    const began = performance.now();
    if (this.options.queueMax <= this.#pings.length) throw this._overloaded();
    const pong = this.#ask();
    if (!pong) throw disconnected();
    await pong.within(timeoutMs, () => this._late('a ping', 'requestMsMax', timeoutMs)).follow(signal).promise;
    return performance.now() - began;
  }

  #ask() {
    if (!this._send(this._pingFrame())) return undefined;
    const pong = new Waiting();
    // Answers keep the order, so one that nobody waits for keeps its place.
    this.#pings.push(pong);
    return pong;
  }

  _handlePong() {
    this.#pings.shift()?.resolve();
  }

  async #open(renew = false) {
    this.#enter('connecting');
    const nth = this.#opens += 1;
    const isCurrent = () => this.state === 'connecting' && this.#opens === nth;
    this._after(this.options.handshakeMsMax, () => {
      if (isCurrent()) this.#lost(1006, this._late('a token and a handshake', 'handshakeMsMax').message);
    });
    let token;
    try {
      token = await tokenOf(this.options, renew);
    } catch (error) {
      if (isCurrent()) this.#tokenless(error);
      return;
    }
    if (isCurrent()) this.#dial(token);
  }

  /** A source of tokens that fails is a failed attempt as any other; a fixed one stays bad. */
  #tokenless(cause) {
    const error = noToken(cause);
    this.#stopTimers();
    if (typeof this.options.token !== 'function' || this.options.attemptsMax <= this.#attempt) {
      this.#end(error);
      return;
    }
    this._tell('error', error);
    this.#retry(0);
  }

  #dial(token) {
    const protocols = token ? [this.protocol, 'bearer', token] : [this.protocol];
    let socket;
    try {
      socket = new this._WebSocket(this.url, protocols);
    } catch (error) {
      this.#end(new TidegateError('url', error.message, { cause: error }));
      return;
    }
    this.#socket = socket;
    const isMine = () => this.#socket === socket;
    let openedAt;
    socket.onopen = () => {
      if (!isMine()) return;
      openedAt = Date.now();
      this.#opened();
    };
    socket.onmessage = (message) => {
      this.#heard = true;
      if (isMine() && typeof message.data === 'string') this.#frame(message.data);
    };
    // The close that follows says more.
    socket.onerror = () => {};
    socket.onclose = (close) => {
      if (isMine()) this.#lost(close.code, close.reason, openedAt);
    };
  }

  #opened() {
    this.#stopTimers();
    this.#heard = true;
    this.state = 'open';
    // What waits goes out before anybody hears, who might send something too.
    this._handleOpen();
    this.#watch();
    for (const waiting of [...this.#connects]) waiting.resolve();
    this._tell('state', 'open');
    if (this.isOpen) this._tell('open');
  }

  #frame(text) {
    try {
      const frame = JSON.parse(text);
      if (typeof frame !== 'object' || frame === null) throw new TypeError('not an object');
      this._handleFrame(frame, text);
    } catch (error) {
      this._tell('error', new TidegateError('invalid_frame', error.message, { cause: error }));
    }
  }

  #lost(code, reason, openedAt) {
    const socket = this.#socket;
    this.#socket = undefined;
    // One that is given up says no more.
    closeSocket(socket, 1000, '');
    this.#stopTimers();
    this.state = 'waiting';
    this._tell('close', { code, reason });
    for (const pong of this.#pings.splice(0)) pong.reject(disconnected('the connection was lost'));
    this._handleLost(code);
    // A listener may have ended it.
    if (this.state !== 'closed') this.#comeBack(code, reason, openedAt);
  }

  #comeBack(code, reason, openedAt) {
    const wasStable = openedAt !== undefined && this.options.stableMs <= Date.now() - openedAt;
    if (wasStable) this.#attempt = this.#policyCloses = 0;
    const next = afterClose(code);
    if (next.policy) this.#policyCloses += 1;
    const renews = next.action === 'renew' && typeof this.options.token === 'function';
    const gaveUp = next.action === 'stop' || (next.action === 'renew' && !renews)
      || POLICY_CLOSES_MAX <= this.#policyCloses || this.options.attemptsMax <= this.#attempt;
    if (gaveUp) {
      this.#end(ended(code, reason));
    } else if (renews && this.#attempt === 0) {
      this.#attempt += 1;
      this.#open(true);
    } else {
      this.#retry(next.attempt ?? 0, renews);
    }
  }

  #retry(attemptMin, renew = false) {
    this.#enter('waiting');
    if (this.state === 'closed') return;
    const wait = backoffMs(Math.max(attemptMin, this.#attempt), this.options);
    this.#attempt += 1;
    this._after(wait, () => this.#open(renew));
  }

  #end(error) {
    if (this.state === 'closed') return;
    this.#stopTimers();
    const socket = this.#socket;
    this.#socket = undefined;
    closeSocket(socket, 1000, '');
    this.error = error;
    this.state = 'closed';
    const isQuiet = error.code === 'closed';
    for (const waiting of [...this.#connects]) waiting.reject(error, isQuiet);
    for (const pong of this.#pings.splice(0)) pong.reject(error);
    this._handleEnd(error, isQuiet);
    this._tell('state', 'closed');
  }

  /** A connection may be gone without a word: silence is asked about, then believed. */
  #watch() {
    const { pingIntervalMs, pongMsMax } = this.options;
    if (!(0 < pingIntervalMs)) return;
    const look = () => {
      if (this.#heard) {
        this.#heard = false;
        this._after(pingIntervalMs, look);
        return;
      }
      this.#ask();
      this._after(pongMsMax, () => (this.#heard ? look() : this.#lost(1006, 'no answer')));
    };
    look();
  }

  #enter(state) {
    if (this.state === 'closed') return;
    this.state = state;
    this._tell('state', state);
  }

  /** However often the server says that a token ends: a source is asked at most every `renewMsMin`. */
  _renewToken() {
    if (typeof this.options.token !== 'function' || this.#renewTimer !== undefined) return;
    const wait = Math.max(0, this.#renewedAt + this.options.renewMsMin - performance.now());
    this.#renewTimer = this._after(wait, () => this.#renew());
  }

  async #renew() {
    this.#renewedAt = performance.now();
    const socket = this.#socket;
    try {
      const waiting = new Waiting();
      const { handshakeMsMax } = this.options;
      waiting.within(handshakeMsMax, () => this._late('a token', 'handshakeMsMax'));
      tokenOf(this.options, true).then((token) => waiting.resolve(token), (error) => waiting.reject(error));
      const token = await waiting.promise;
      if (token && this.#socket === socket) this._send(JSON.stringify({ type: 'auth', token }));
    } catch (error) {
      this._tell('error', noToken(error));
      // It may give one a little later, and before the last one has ended.
      if (this.isOpen && this.#socket === socket) {
        this.#renewTimer = undefined;
        this._renewToken();
        return;
      }
    }
    if (this.#socket === socket) this.#renewTimer = undefined;
  }

  /** Whether it went out: only an open connection takes anything. */
  _send(text) {
    if (!this.isOpen) return false;
    this.#socket.send(text);
    return true;
  }

  /** Something that waits for its answer; who fails unheard is told as `error`, or is uncaught. */
  _waiting() {
    return new Waiting((error) => {
      if (this._hears('error')) this._tell('error', error);
      else Promise.reject(error);
    });
  }

  _after(ms, then) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      then();
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  #stopTimers() {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#renewTimer = undefined;
  }

  _gone() {
    return this.error ?? closed();
  }

  _overloaded() {
    const { queueMax } = this.options;
    return new TidegateError('overloaded', `${queueMax} requests wait, and queueMax = ${queueMax}`);
  }

  _late(what, key, ms = this.options[key]) {
    return new TidegateError('timeout', `no answer to ${what} within ${ms} ms (${key})`, { key, limit: ms });
  }
}

/** Whatever the socket thinks of code and reason, it is closed. */
function closeSocket(socket, code, reason) {
  if (!socket) return;
  // One that is not open yet complains, and one that was given up has nothing to tell.
  socket.onopen = socket.onmessage = socket.onclose = null;
  try {
    socket.close(code, cut(String(reason ?? '')));
  } catch {
    socket.close();
  }
}

/** A text of at most 123 bytes, whole characters of it. */
function cut(text) {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length <= REASON_BYTES_MAX) return text;
  const decoded = new TextDecoder().decode(bytes.subarray(0, REASON_BYTES_MAX), { stream: true });
  return decoded;
}

function noToken(cause) {
  return new TidegateError('token', `no token: ${cause?.message ?? cause}`, { cause });
}

const REASON_BYTES_MAX = 123;
const OPEN = 1;
