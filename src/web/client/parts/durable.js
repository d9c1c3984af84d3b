// The durable dialect: topics with a log, and cursors that outlive connections. Knows its frames.

import { Connection } from './connection.js';
import { TidegateError, refusal, toJson } from './errors.js';
import { DurableSubscription, LEAVING } from './subscription.js';

export class DurableClient extends Connection {
  #publishes = new Map(); // by `ref`, in their order
  #inFlight = 0;
  #subscriptions = new Set();
  #reference = 0;

  constructor(url, options = {}) {
    super(url, 'tidegate.durable.v1', options);
  }

  /**
   * Stores a message; resolves with `{ topic, seq, duplicate }` once it is durable. While there is
   * no connection it waits, `offlineMsMax` at most. One that was sent when the connection broke may
   * or may not be stored: with an `idempotencyKey` it is sent again and stored once, without one
   * the promise is rejected with the code `unknown_outcome`.
   */
  publish(topic, payload, { idempotencyKey, timeoutMs, signal } = {}) {
    const waiting = this._waiting();
    const ref = this._reference();
    try {
      if (this.state === 'closed') throw this._gone();
      if (this.options.queueMax <= this.#publishes.size) throw this._overloaded();
      if (idempotencyKey !== undefined && typeof idempotencyKey !== 'string') {
        throw new TidegateError('invalid_payload', `an idempotencyKey is a string, not a ${typeof idempotencyKey}`);
      }
      // Now, and not when it goes out: what cannot be said is refused alone.
      const text = toJson(payload);
      const head = toJson({ type: 'publish', topic, idempotency_key: idempotencyKey, ref }, 'the topic or the key');
      const frame = `${head.slice(0, -1)},"payload":${text}}`;
      const entry = { waiting, frame, topic, hasKey: idempotencyKey !== undefined, isSent: false, timeoutMs };
      this.#publishes.set(ref, entry);
      waiting.finally(() => this.#forgetPublish(ref));
      this.#limit(entry);
      waiting.follow(signal);
      this.#pump();
    } catch (error) {
      waiting.reject(error);
    }
    return waiting.promise;
  }

  /** How long it may take from here: until there is a connection, then until the answer. */
  #limit(entry) {
    const key = entry.isSent ? 'requestMsMax' : 'offlineMsMax';
    const ms = entry.timeoutMs ?? this.options[key];
    // A limit of the caller's own is for the whole.
    if (entry.isSent && entry.timeoutMs !== undefined) return;
    entry.waiting.within(ms, () => {
      const late = this._late(`a publish to ${entry.topic}`, key, ms);
      late.message += entry.isSent ? ': it may be stored or not' : ': it was not sent';
      late.wasSent = entry.isSent;
      return late;
    });
  }

  #forgetPublish(ref) {
    const entry = this.#publishes.get(ref);
    if (!this.#publishes.delete(ref)) return;
    if (entry.isSent) this.#inFlight -= 1;
    this.#pump();
  }

  /** Sends what waits, in its order, so that never more than `inFlightMax` are without an answer. */
  #pump() {
    if (!this.isOpen || this.options.inFlightMax <= this.#inFlight) return;
    for (const entry of [...this.#publishes.values()]) {
      if (this.options.inFlightMax <= this.#inFlight) return;
      if (entry.isSent || entry.waiting.isSettled) continue;
      if (!this._send(entry.frame)) return;
      entry.isSent = true;
      this.#inFlight += 1;
      this.#limit(entry);
    }
  }

  /**
   * Hands the messages of a topic to `handler`, one after another, from the cursor of `subName`
   * on. What it has handled is acked in batches; when it fails the rest is delivered again after a
   * while. Resolves with the subscription when the server has agreed.
   */
  subscribe({ timeoutMs, signal, ...options }, handler) {
    const waiting = this._waiting();
    const { topic } = options;
    const taken = [...this.#subscriptions].some((one) => one.topic === topic || one.topicId === topic);
    if (this.state === 'closed') waiting.reject(this._gone());
    else if (taken) waiting.reject(alreadySubscribed(topic));
    if (waiting.isSettled) return waiting.promise;
    const subscription = new DurableSubscription(this, options, handler, waiting);
    const key = this.isOpen ? 'requestMsMax' : 'offlineMsMax';
    const ms = timeoutMs ?? this.options[key];
    waiting.within(ms, () => this._late(`a subscribe to ${topic}`, key, ms));
    try {
      subscription._attach();
      this.#subscriptions.add(subscription);
      waiting.follow(signal).finally(() => subscription._unlessAttached());
    } catch (error) {
      waiting.reject(error);
    }
    return waiting.promise;
  }

  _reference() {
    this.#reference += 1;
    return `r${this.#reference}`;
  }

  _forget(subscription) {
    this.#subscriptions.delete(subscription);
  }

  _pingFrame() {
    return '{"type":"ping"}';
  }

  _handleOpen() {
    for (const subscription of this.#subscriptions) subscription._attach();
    this.#pump();
  }

  _handleFrame(frame, text) {
    switch (frame.type) {
      case 'message':
        this.#subscriptionOf(frame)?._handleMessage(frame);
        break;
      case 'pub_ack':
        this.#answered(frame)?.waiting.resolve(
          { topic: frame.topic, seq: frame.seq, duplicate: frame.duplicate ?? false });
        break;
      case 'subscribed':
        this.#subscribed(frame, text);
        break;
      case 'unsubscribed':
        this.#bound(frame)?._handleUnsubscribed(frame);
        break;
      case 'gap':
        this.#bound(frame)?._handleGap(frame);
        break;
      case 'pong':
        this._handlePong();
        break;
      case 'token_expiring':
        this._renewToken();
        break;
      case 'error':
        this.#refused(frame);
        break;
      default: // `acked` tells nothing new; others are of a later version
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

  #subscribed(frame, text) {
    const asked = this.#asked(frame);
    if (!asked) return;
    // By name and by id it is the same topic, and messages name no subscription.
    const isTwice = [...this.#subscriptions].some((one) => one !== asked && one.topicId === frame.topic);
    if (isTwice) asked._leaveAs(alreadySubscribed(asked.topic));
    else asked._handleSubscribed(frame, text);
  }

  /** The publish that is answered: by `ref`, else the first of its topic, for acks keep the order. */
  #answered(frame) {
    if (frame.ref !== undefined) return this.#publishes.get(frame.ref);
    const waiting = [...this.#publishes.values()].filter((entry) => entry.isSent);
    return waiting.find((entry) => entry.topic === frame.topic) ?? waiting[0];
  }

  #refused(frame) {
    if (frame.ref === LEAVING) return;
    const error = refusal(frame);
    const publish = frame.ref === undefined ? undefined : this.#publishes.get(frame.ref);
    const all = [...this.#subscriptions];
    const asked = frame.ref === undefined ? undefined : all.find((one) => one._ref === frame.ref);
    if (publish) {
      publish.waiting.reject(error);
    } else if (asked && !asked.isAttached) {
      // Who waits for the answer hears it there.
      if (!asked._refuse(error)) this._tell('error', error);
    } else {
      this.#bound(frame)?._handleRefused(error);
      this._tell('error', error);
    }
  }

  _handleLost(code) {
    const sent = [...this.#publishes.values()].filter((entry) => entry.isSent);
    const largest = code === 1009 ? sent.reduce(larger, undefined) : undefined;
    for (const entry of sent) {
      if (entry.hasKey && entry !== largest) {
        entry.isSent = false;
        this.#limit(entry);
        continue;
      }
      entry.waiting.reject(entry === largest
        ? new TidegateError('too_large', 'the connection ended because a message was too large')
        : new TidegateError('unknown_outcome',
          'the connection was lost before the answer: the message may be stored or not'));
    }
    this.#inFlight = 0;
    for (const subscription of this.#subscriptions) subscription._detach();
  }

  _handleEnd(error, isQuiet) {
    for (const entry of [...this.#publishes.values()]) entry.waiting.reject(error, isQuiet);
    for (const subscription of [...this.#subscriptions]) subscription._end(error, isQuiet);
  }

  /** Ends it for good, after what was handled has been acked. */
  close(code, reason) {
    for (const subscription of this.#subscriptions) subscription.flush();
    super.close(code, reason);
  }
}

function larger(one, other) {
  return one && other.frame.length < one.frame.length ? one : other;
}

function alreadySubscribed(topic) {
  return new TidegateError('already_subscribed', `this connection is subscribed to ${topic}: use a second one`);
}
