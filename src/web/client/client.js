// The client of Tidegate: relay, durable and event dialects over WebSocket, and REST beside them.
// One module without dependencies, for browsers and Node. Node below 22 has no WebSocket of its
// own: pass that of the package `ws`. Its types are in tidegate.d.ts; it knows nothing of a page.

/** What went wrong: `code` is for programs, `message` for people. */
export class TidegateError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.name = 'TidegateError';
    this.code = code;
    Object.assign(this, details);
  }
}

/** Named events; a listener that throws harms nobody else. */
class Emitter {
  #listeners = new Map();

  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => this.#listeners.get(name)?.delete(listener);
  }

  _tell(name, ...values) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(...values);
      } catch (error) {
        // Reported as uncaught, but after everybody has heard.
        queueMicrotask(() => { throw error; });
      }
    }
  }
}

const DEFAULTS = {
  backoffMsMin: 500, // the first wait is between 0 and this
  backoffMsMax: 30_000, // and no wait is longer
  attemptsMax: Infinity, // failed attempts in a row before giving up
  stableMs: 5_000, // open for so long, the next wait is a first one again
  requestMsMax: 10_000, // an answer that takes longer is an error
  pingIntervalMs: 25_000, // silence for so long is asked about
  pongMsMax: 10_000, // and ends the connection after so much more
  queueMax: 1_024, // requests that wait for a connection or an answer
  random: Math.random,
};

/** How many times in a row the server may refuse by policy before we believe it. */
const POLICY_CLOSES_MAX = 3;

/**
 * What to do after a close, by its code: `stop`, or `retry` after a wait that is counted from at
 * least `attempt`.
 */
export function afterClose(code) {
  switch (code) {
    case 1000: // the server is done with us
    case 1002: // we broke the protocol, and would again
    case 1003:
    case 1007:
    case 4403: // revoked
    case 4409: // taken over: coming back would begin a fight
      return { action: 'stop' };
    case 4401: // expired: another token helps, waiting does not
      return { action: 'renew' };
    case 1008: // policy
      return { action: 'retry', attempt: 3, policy: true };
    case 1001: // lived long enough: those who came together are told together
    case 1012: // restart: everybody is told at once, so spread
      return { action: 'retry', attempt: 2 };
    case 1013: // overloaded
      return { action: 'retry', attempt: 4 };
    default:
      return { action: 'retry', attempt: 0 };
  }
}

/** Full jitter: anything between nothing and a ceiling that doubles with each attempt. */
export function backoffMs(attempt, options = {}) {
  const { backoffMsMin, backoffMsMax, random } = { ...DEFAULTS, ...options };
  return random() * Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(attempt, 30));
}

/** One connection that comes back by itself. The dialects are built on it. */
class Connection extends Emitter {
  #socket;
  #timers = new Set();
  #attempt = 0;
  #policyCloses = 0;
  #heard = false;
  #firstOpen;

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
  }

  /** Connects, and again whenever that is lost. Resolves when it is open for the first time. */
  connect() {
    if (this.state === 'closed') return Promise.reject(this._gone());
    if (!this.#firstOpen) {
      this.#firstOpen = deferred();
      this.#open();
    }
    return this.#firstOpen.promise;
  }

  /** Ends it for good. */
  close(code = 1000, reason = '') {
    this.#end(new TidegateError('closed', 'closed by this side'));
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close(code, reason);
  }

  get isOpen() {
    // A listener of `close` hears before the state is another.
    return this.state === 'open' && this.#socket !== undefined;
  }

  async #open(renew = false) {
    this.#enter('connecting');
    let token;
    try {
      token = await this._token(renew);
    } catch (error) {
      this._tell('error', new TidegateError('token', `no token: ${error.message}`, { cause: error }));
      return this.state !== 'closed' && this.#retry(0);
    }
    if (this.state !== 'connecting') return undefined;
    const protocols = token ? [this.protocol, 'bearer', token] : [this.protocol];
    let socket;
    try {
      socket = new this._WebSocket(this.url, protocols);
    } catch (error) {
      return this.#end(new TidegateError('url', error.message, { cause: error }));
    }
    this.#socket = socket;
    const mine = () => this.#socket === socket;
    let openedAt;
    socket.onopen = () => {
      if (!mine()) return;
      openedAt = Date.now();
      this.#opened();
    };
    socket.onmessage = (message) => {
      this.#heard = true;
      if (mine() && typeof message.data === 'string') this.#frame(message.data);
    };
    // The close that follows says more.
    socket.onerror = () => {};
    socket.onclose = (close) => {
      if (mine()) this.#closed(close.code, close.reason, openedAt);
    };
    return undefined;
  }

  #opened() {
    this.#enter('open');
    this.#watch();
    this._handleOpen();
    this.#firstOpen.resolve();
    this._tell('open');
  }

  #frame(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch (error) {
      this._tell('error', new TidegateError('invalid_frame', error.message));
      return;
    }
    this._handleFrame(frame, text);
  }

  #closed(code, reason, openedAt) {
    this.#socket = undefined;
    this.#stopTimers();
    this._tell('close', { code, reason });
    const wasStable = openedAt !== undefined && this.options.stableMs <= Date.now() - openedAt;
    if (wasStable) this.#attempt = this.#policyCloses = 0;
    this._handleLost(code);
    const next = afterClose(code);
    if (next.policy) this.#policyCloses += 1;
    const renews = next.action === 'renew' && typeof this.options.token === 'function';
    const gaveUp = next.action === 'stop' || (next.action === 'renew' && !renews)
      || POLICY_CLOSES_MAX <= this.#policyCloses || this.options.attemptsMax <= this.#attempt;
    if (gaveUp) {
      const text = `the connection ended with ${code}${reason ? `: ${reason}` : ''}`;
      this.#end(new TidegateError(CODES[code] ?? 'disconnected', text, { closeCode: code }));
    } else if (renews && this.#attempt === 0) {
      this.#attempt += 1;
      this.#open(true);
    } else {
      this.#retry(next.attempt ?? 0, renews);
    }
  }

  #retry(attemptMin, renew = false) {
    this.#enter('waiting');
    const wait = backoffMs(Math.max(attemptMin, this.#attempt), this.options);
    this.#attempt += 1;
    this._after(wait, () => this.#open(renew));
  }

  #end(error) {
    if (this.state === 'closed') return;
    this.#stopTimers();
    this.error = error;
    this.#enter('closed');
    this.#firstOpen?.reject(error);
    this._handleEnd(error);
  }

  /** A connection may be gone without a word: silence is asked about, then believed. */
  #watch() {
    const { pingIntervalMs, pongMsMax } = this.options;
    if (!this._canPing || !(0 < pingIntervalMs)) return;
    const socket = this.#socket;
    const ask = () => {
      if (this.#heard) {
        this.#heard = false;
        this._after(pingIntervalMs, ask);
        return;
      }
      this._send({ type: 'ping' });
      this._after(pongMsMax, () => {
        if (this.#heard) return ask();
        socket.onclose = null;
        socket.close();
        return this.#closed(1006, 'no answer', undefined);
      });
    };
    this.#heard = true;
    ask();
  }

  #enter(state) {
    if (this.state === 'closed') return;
    this.state = state;
    this._tell('state', state);
  }

  /** A source that keeps a token may hand out one that has expired while there was no connection. */
  async _token(renew) {
    const { token } = this.options;
    if (typeof token !== 'function') return token;
    const given = await token({ renew });
    return renew || !hasExpired(given) ? given : token({ renew: true });
  }

  async _renewToken() {
    if (typeof this.options.token !== 'function') return;
    try {
      this._send({ type: 'auth', token: await this._token(true) });
    } catch (error) {
      this._tell('error', new TidegateError('token', `no token: ${error.message}`, { cause: error }));
    }
  }

  /** Whether it went out: only an open connection takes anything. */
  _send(frame) {
    if (!this.isOpen) return false;
    this.#socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
    return true;
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
  }

  _gone() {
    return this.error ?? new TidegateError('closed', 'the connection is closed');
  }

  _overloaded() {
    return new TidegateError('overloaded', `more than queueMax = ${this.options.queueMax} requests wait`);
  }

  _late(what) {
    return new TidegateError('timeout', `no answer to ${what} within ${this.options.requestMsMax} ms`);
  }
}

const CODES = {
  1008: 'policy', 1009: 'too_large', 1012: 'restart', 1013: 'overloaded',
  4401: 'token_expired', 4403: 'token_revoked', 4409: 'taken_over',
};

/** What the token says of itself, by this side's clock; the server decides. */
function hasExpired(token) {
  try {
    const claims = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(atob(claims)).exp * 1_000 <= Date.now();
  } catch {
    return false;
  }
}

function deferred() {
  const one = {};
  one.promise = new Promise((resolve, reject) => Object.assign(one, { resolve, reject }));
  // Whoever waits for it hears of a failure; where nobody does it is told as an event.
  one.promise.catch(() => {});
  return one;
}

/** A deferred that fails by itself when nobody answers. */
function expected(ms, error) {
  const one = deferred();
  const timer = setTimeout(() => one.reject(error()), ms);
  const stop = () => clearTimeout(timer);
  one.promise.then(stop, stop);
  return one;
}

function refusal(frame) {
  const { message, code = 'refused', topic, sub_name: subName } = frame;
  return new TidegateError(code, message, { topic, subName });
}

/** REST of a server, with the tenant of the token. */
export class Rest {
  constructor(base, options = {}) {
    const url = new URL(base);
    url.protocol = url.protocol.replace(/^ws/, 'http');
    this.base = url.origin;
    this.options = options;
  }

  /** Any route. The answer is what its JSON says; a problem document becomes an error. */
  async request(method, path, body) {
    const { token, fetch = globalThis.fetch } = this.options;
    const bearer = typeof token === 'function' ? await token({ renew: false }) : token;
    const headers = {};
    if (bearer) headers.Authorization = `Bearer ${bearer}`;
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    const answer = await fetch(`${this.base}${path}`, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    const isJson = /json/.test(answer.headers.get('content-type') ?? '');
    const value = isJson && text ? JSON.parse(text) : text;
    if (answer.ok) return value;
    const { title, detail } = isJson ? value : {};
    throw new TidegateError('http', detail ?? title ?? `HTTP ${answer.status}`, { status: answer.status });
  }

  push(topic, event, payload) {
    return this.request('POST', '/v1/relay/push', { topic, event, payload });
  }

  presence(topic) {
    return this.request('GET', `/v1/relay/presence?topic=${encodeURIComponent(topic)}`);
  }

  connections() {
    return this.request('GET', '/v1/connections');
  }

  disconnect(id) {
    return this.request('DELETE', `/v1/connections/${encodeURIComponent(id)}`);
  }

  /** Makes a durable topic, or finds it. */
  topic(name) {
    return this.request('POST', '/v1/topics', { name });
  }

  topics() {
    return this.request('GET', '/v1/topics');
  }

  deleteTopic(id) {
    return this.request('DELETE', `/v1/topics/${encodeURIComponent(id)}`);
  }

  publish(id, payload, { idempotencyKey } = {}) {
    const body = { payload, idempotency_key: idempotencyKey };
    return this.request('POST', `/v1/topics/${encodeURIComponent(id)}/messages`, body);
  }

  messages(id, { fromSeq = 1, limit = 100 } = {}) {
    return this.request('GET', `/v1/topics/${encodeURIComponent(id)}/messages?from_seq=${fromSeq}&limit=${limit}`);
  }

  subscriptions({ topic, subName } = {}) {
    const query = new URLSearchParams();
    if (topic !== undefined) query.set('topic', topic);
    if (subName !== undefined) query.set('sub_name', subName);
    return this.request('GET', `/v1/subscriptions?${query}`);
  }

  deleteSubscription(id) {
    return this.request('DELETE', `/v1/subscriptions/${encodeURIComponent(id)}`);
  }
}

/** The relay dialect: topics by name, which keep nothing. */
export class RelayClient extends Connection {
  #topics = new Map();
  #pongs = [];
  _canPing = true;

  constructor(url, options = {}) {
    super(url, 'tidegate.relay.v1', options);
    this.rest = new Rest(url, options);
  }

  /**
   * Hears a topic, from now on and after every reconnect. Resolves when the server has agreed,
   * or rejects when it refuses.
   */
  async subscribe(topic, listener) {
    if (this.state === 'closed') throw this._gone();
    let entry = this.#topics.get(topic);
    if (!entry) {
      entry = { listeners: new Set(), waiting: deferred(), on: false };
      this.#topics.set(topic, entry);
      this._send({ type: 'subscribe', topic });
    }
    const subscription = new RelaySubscription(topic, () => this.#leave(topic, subscription));
    if (listener) subscription.on('message', listener);
    entry.listeners.add(subscription);
    await entry.waiting.promise;
    return subscription;
  }

  /** Gives a message to the topic's handler. False where there is no connection: nothing waits. */
  send(topic, event, payload = null) {
    return this._send({ type: 'message', topic, event, payload });
  }

  /** Pushes over REST: also to topics that this client does not hear. */
  push(topic, event, payload = null) {
    return this.rest.push(topic, event, payload);
  }

  /** Who is present. */
  presence(topic) {
    return this.rest.presence(topic);
  }

  /** How many milliseconds a question and its answer take. */
  async ping() {
    const began = performance.now();
    if (this.options.queueMax <= this.#pongs.length) throw this._overloaded();
    if (!this._send({ type: 'ping' })) throw new TidegateError('disconnected', 'there is no connection');
    const pong = expected(this.options.requestMsMax, () => this._late('ping'));
    this.#pongs.push(pong);
    await pong.promise;
    return performance.now() - began;
  }

  #leave(topic, subscription) {
    const entry = this.#topics.get(topic);
    if (!entry?.listeners.delete(subscription) || entry.listeners.size) return;
    this.#topics.delete(topic);
    this._send({ type: 'unsubscribe', topic });
  }

  _handleOpen() {
    for (const topic of this.#topics.keys()) this._send({ type: 'subscribe', topic });
  }

  _handleFrame(frame) {
    const entry = this.#topics.get(frame.topic);
    switch (frame.type) {
      case 'push':
        for (const one of entry?.listeners ?? []) one._tell('message', frame);
        break;
      case 'subscribed':
        if (entry) entry.on = true;
        entry?.waiting.resolve();
        break;
      case 'lagged':
        for (const one of entry?.listeners ?? []) one._tell('lagged', frame.missed);
        this._tell('lagged', frame);
        break;
      case 'pong':
        this.#pongs.shift()?.resolve();
        break;
      case 'token_expiring':
        this._renewToken();
        break;
      case 'error':
        this.#refused(frame, entry);
        break;
      default: // `unsubscribed` tells nothing new; others are of a later version
    }
  }

  #refused(frame, entry) {
    const error = refusal(frame);
    const ends = ['join_rejected', 'subscription_limit', 'unauthorized', 'invalid_message'];
    if (entry && !entry.on && ends.includes(error.code)) {
      this.#topics.delete(frame.topic);
      entry.waiting.reject(error);
      for (const one of entry.listeners) one._tell('end', error);
    }
    this._tell('error', error);
  }

  _handleLost() {
    for (const entry of this.#topics.values()) entry.on = false;
    for (const pong of this.#pongs.splice(0)) {
      pong.reject(new TidegateError('disconnected', 'the connection was lost'));
    }
  }

  _handleEnd(error) {
    this._handleLost();
    for (const entry of this.#topics.values()) {
      entry.waiting.reject(error);
      for (const one of entry.listeners) one._tell('end', error);
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

/** The durable dialect: topics with a log, and cursors that outlive connections. */
export class DurableClient extends Connection {
  #publishes = new Map();
  #subscriptions = new Set();
  #reference = 0;
  _canPing = true;

  constructor(url, options = {}) {
    super(url, 'tidegate.durable.v1', options);
    this.rest = new Rest(url, options);
  }

  /**
   * Stores a message; resolves with `{ topic, seq, duplicate }` once it is durable. While there is
   * no connection it waits. One that was sent when the connection broke may or may not be stored:
   * with an `idempotencyKey` it is sent again and stored once, without one the promise is rejected
   * with the code `unknown_outcome`.
   */
  publish(topic, payload, { idempotencyKey } = {}) {
    if (this.state === 'closed') return Promise.reject(this._gone());
    if (this.options.queueMax <= this.#publishes.size) return Promise.reject(this._overloaded());
    const ref = this._reference();
    const frame = { type: 'publish', topic, payload, idempotency_key: idempotencyKey, ref };
    const entry = Object.assign(deferred(), { frame });
    this.#publishes.set(ref, entry);
    entry.sent = this._send(frame);
    return entry.promise;
  }

  /**
   * Hands the messages of a topic to `handler`, one after another, from the cursor of `subName`
   * on. What it has handled is acked in batches; when it fails the rest is delivered again after a
   * while. Resolves with the subscription when the server has agreed.
   */
  async subscribe({ topic, subName, ...options }, handler) {
    if (this.state === 'closed') throw this._gone();
    const taken = [...this.#subscriptions].some((one) => one.topic === topic || one.topicId === topic);
    if (taken) {
      // Messages name their topic and no subscription, so two would be mixed up.
      throw new TidegateError('already_subscribed', `this connection is subscribed to ${topic}: use a second one`);
    }
    const subscription = new DurableSubscription(this, { topic, subName, ...options }, handler);
    this.#subscriptions.add(subscription);
    subscription._attach();
    await subscription._ready.promise;
    return subscription;
  }

  _reference() {
    this.#reference += 1;
    return `r${this.#reference}`;
  }

  _forget(subscription) {
    this.#subscriptions.delete(subscription);
  }

  _handleOpen() {
    for (const subscription of this.#subscriptions) subscription._attach();
    for (const entry of this.#publishes.values()) entry.sent = this._send(entry.frame);
  }

  _handleFrame(frame, text) {
    switch (frame.type) {
      case 'message':
        this.#subscriptionOf(frame)?._handleMessage(frame);
        break;
      case 'pub_ack':
        this.#settle(frame)?.resolve({ topic: frame.topic, seq: frame.seq, duplicate: frame.duplicate ?? false });
        break;
      case 'subscribed':
        this.#asked(frame)?._handleSubscribed(frame, text);
        break;
      case 'unsubscribed':
        this.#bound(frame)?._handleUnsubscribed(frame);
        break;
      case 'gap':
        this.#bound(frame)?._handleGap(frame);
        break;
      case 'token_expiring':
        this._renewToken();
        break;
      case 'error':
        this.#refused(frame);
        break;
      default: // `pong` and `acked` tell nothing new; others are of a later version
    }
  }

  #subscriptionOf(frame) {
    return [...this.#subscriptions].find((one) => one.topicId === frame.topic);
  }

  #bound(frame) {
    return [...this.#subscriptions].find(
      (one) => one.topicId === frame.topic && one.boundName === frame.sub_name,
    );
  }

  /** Whose question this answers: by `ref`, else by the names. */
  #asked(frame) {
    const all = [...this.#subscriptions];
    if (frame.ref !== undefined) return all.find((one) => one._ref === frame.ref);
    return all.find((one) => one.topicId === undefined && frame.sub_name?.endsWith(one.subName))
      ?? this.#bound(frame);
  }

  /** The publish that is answered: by `ref`, else the first of its topic, for acks keep the order. */
  #settle(frame) {
    let { ref } = frame;
    if (ref === undefined) {
      const waiting = [...this.#publishes].filter(([, entry]) => entry.sent);
      ref = (waiting.find(([, entry]) => entry.frame.topic === frame.topic) ?? waiting[0])?.[0];
    }
    const entry = this.#publishes.get(ref);
    this.#publishes.delete(ref);
    return entry;
  }

  #refused(frame) {
    const error = refusal(frame);
    if (this.#publishes.has(frame.ref)) {
      this.#settle(frame).reject(error);
      return;
    }
    const asked = [...this.#subscriptions].find((one) => one._ref === frame.ref && frame.ref !== undefined);
    if (asked && !asked.isAttached) asked._end(error);
    this._tell('error', error);
  }

  _handleLost(code) {
    for (const [ref, entry] of this.#publishes) {
      const again = entry.frame.idempotency_key !== undefined && code !== 1009;
      if (!entry.sent || again) {
        entry.sent = false;
        continue;
      }
      this.#publishes.delete(ref);
      const text = 'the connection was lost before the answer: the message may be stored or not';
      entry.reject(code === 1009
        ? new TidegateError('too_large', 'the connection ended because a message was too large')
        : new TidegateError('unknown_outcome', text));
    }
    for (const subscription of this.#subscriptions) subscription._detach();
  }

  _handleEnd(error) {
    this._handleLost();
    for (const entry of this.#publishes.values()) entry.reject(error);
    this.#publishes.clear();
    for (const subscription of [...this.#subscriptions]) subscription._end(error);
  }

  /** Ends it for good, after what was handled has been acked. */
  close(code, reason) {
    for (const subscription of this.#subscriptions) subscription.flush();
    super.close(code, reason);
  }
}

/** A durable subscription on one connection at a time. */
class DurableSubscription extends Emitter {
  #client;
  #options;
  #handler;
  #waiting = []; // at most the window, which the server keeps
  #running = false;
  #handled = 0; // everything up to here went through the handler
  #acked = 0; // and the server was told up to here
  #unacked = 0;
  #ackTimer;
  #failures = 0;
  #resuming = false; // what was handled comes again because its ack was lost with the connection
  _ready = deferred();

  constructor(client, options, handler) {
    super();
    this.#client = client;
    this.#options = { ackEvery: 64, ackDelayMs: 50, ...options };
    this.#handler = handler;
    this.topic = options.topic;
    this.subName = options.subName;
    this.isAttached = false;
  }

  /** Acks through this seq: for handlers with `manualAck`. */
  ack(seq) {
    this.#handled = Math.max(this.#handled, seq);
    this.#unacked += 1;
    this.#ackSoon();
  }

  /** Tells the server now what was handled. */
  flush() {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    if (!this.isAttached || this._ended || this.#handled <= this.#acked) return;
    const frame = { type: 'ack', topic: this.topicId, sub_name: this.subName, seq: this.#handled };
    if (this.#client._send(frame)) {
      this.#acked = this.#handled;
      this.#unacked = 0;
    }
  }

  /** Ends it here; the cursor stays on the server. */
  unsubscribe() {
    this.flush();
    if (this.isAttached) this.#sendUnsubscribe();
    this._end(undefined);
  }

  #sendUnsubscribe() {
    this.#client._send({ type: 'unsubscribe', topic: this.topicId, sub_name: this.subName });
  }

  _attach() {
    if (this._ended) return;
    this._ref = this.#client._reference();
    const first = this.topicId === undefined;
    const { fromSeq, seek, maxInFlight, topic, subName } = this.#options;
    const frame = {
      type: 'subscribe',
      topic: this.topicId ?? topic,
      sub_name: subName,
      // The cursor knows better once there is one.
      from_seq: first ? fromSeq : undefined,
      seek: first && seek ? true : undefined,
      max_in_flight: maxInFlight,
      ref: this._ref,
    };
    let text = JSON.stringify(frame);
    // An epoch may be larger than a number of JavaScript, so it stays a text.
    if (this.epoch !== undefined) text = `${text.slice(0, -1)},"epoch":${this.epoch}}`;
    this.#client._send(text);
  }

  _detach() {
    this.isAttached = false;
    this.#waiting = [];
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
  }

  _handleSubscribed(frame, text) {
    const epoch = /"epoch":(\d+)/.exec(text)?.[1];
    const sameLog = this.epoch === undefined || epoch === this.epoch;
    // Further back than the acks that can have been lost, the cursor was moved on purpose.
    const { maxInFlight = 256 } = this.#options;
    this.#resuming = sameLog && this.#handled - frame.cursor <= maxInFlight;
    this.epoch = epoch;
    this.topicId = frame.topic;
    this.boundName = frame.sub_name; // the server may put the `sub` of the token before it
    this.id = frame.subscription_id;
    this.isAttached = true;
    this.#acked = frame.cursor;
    if (!this.#resuming) this.#handled = frame.cursor;
    this._tell('subscribed', frame);
    this._ready.resolve();
    this.flush();
  }

  _handleMessage(frame) {
    // What was on its way while we left: it comes again, and is no part of the new binding.
    if (!this.isAttached) return;
    this.#waiting.push(frame);
    if (!this.#running) this.#run();
  }

  async #run() {
    this.#running = true;
    while (this.#waiting.length) {
      const frame = this.#waiting.shift();
      if (this.#isKnown(frame.seq)) continue;
      try {
        await this.#handler?.({ ...frame, ack: () => this.ack(frame.seq) });
      } catch (error) {
        this.#failed(error);
        break;
      }
      this.#failures = 0;
      if (this.#options.manualAck) continue;
      this.#handled = Math.max(this.#handled, frame.seq);
      this.#unacked += 1;
      this.#ackSoon();
    }
    this.#running = false;
    if (this.#waiting.length) this.#run();
  }

  /** Whether it was handled before the connection broke, and only its ack was lost. */
  #isKnown(seq) {
    if (this.#handled < seq) {
      this.#resuming = false;
      return false;
    }
    // Else somebody has moved the cursor back, so that it is handled again.
    if (!this.#resuming) this.#handled = this.#acked = seq - 1;
    return this.#resuming;
  }

  /** A handler that fails gets its message again: from the cursor, after a while. */
  #failed(error) {
    this._tell('error', error);
    this.flush();
    if (!this.isAttached) return;
    this.#sendUnsubscribe();
    this._detach();
    const wait = backoffMs(this.#failures, this.#client.options);
    this.#failures += 1;
    this.#client._after(wait, () => this._attach());
  }

  #ackSoon() {
    const { ackEvery, ackDelayMs, maxInFlight = 256 } = this.#options;
    // A window that is full before the batch would stand still until the timer.
    if (Math.min(ackEvery, Math.max(1, maxInFlight >> 1)) <= this.#unacked) this.flush();
    else this.#ackTimer ??= setTimeout(() => this.flush(), ackDelayMs);
  }

  _handleGap(frame) {
    if (frame.reason === 'epoch') this.#resuming = false;
    this._tell('gap', { from: frame.from, to: frame.to, reason: frame.reason });
  }

  _handleUnsubscribed(frame) {
    // Without a reason it is the answer to our own question.
    if (frame.reason === undefined || !this.isAttached) return;
    this._end(new TidegateError(frame.reason, `the subscription ended: ${frame.reason}`));
  }

  _end(error) {
    if (this._ended) return;
    this._ended = true;
    this._detach();
    this.#client._forget(this);
    this._ready.reject(error ?? new TidegateError('unsubscribed', 'unsubscribed by this side'));
    this._tell('end', error);
  }
}

/** The event dialect: named events both ways, answers by `id`. */
export class EventClient extends Connection {
  #requests = new Map();
  #events = new Emitter();
  #id = 0;

  constructor(url, options = {}) {
    super(url, 'tidegate.event.v1', options);
    this.rest = new Rest(url, options);
  }

  /** Hears an event of the server. `event` may be `*`, which hears all. */
  onEvent(event, listener) {
    return this.#events.on(event, listener);
  }

  /** Sends an event. False where there is no connection: nothing waits. */
  emit(event, data = null) {
    return this._send({ event, data });
  }

  /** Sends an event and waits for its answer. */
  request(event, data = null) {
    if (this.options.queueMax <= this.#requests.size) return Promise.reject(this._overloaded());
    this.#id += 1;
    const id = this.#id;
    if (!this._send({ event, data, id })) {
      return Promise.reject(new TidegateError('disconnected', 'there is no connection'));
    }
    const answer = expected(this.options.requestMsMax, () => this._late(`\`${event}\``));
    this.#requests.set(id, answer);
    const forget = () => this.#requests.delete(id);
    answer.promise.then(forget, forget);
    return answer.promise;
  }

  _handleOpen() {}

  _handleFrame(frame) {
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
    for (const request of this.#requests.values()) {
      request.reject(new TidegateError('disconnected', 'the connection was lost before the answer'));
    }
  }

  _handleEnd() {
    this._handleLost();
  }
}
