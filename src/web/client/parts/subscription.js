// A durable subscription, on one connection at a time. Knows what was delivered, handled and acked.

import { Emitter } from './emitter.js';
import { TidegateError, toJson } from './errors.js';
import { backoffMs } from './options.js';

export class DurableSubscription extends Emitter {
  #client;
  #options;
  #handler;
  #ready;
  #waiting = []; // at most the window, which the server keeps
  #running = false;
  #handled = 0; // everything up to here went through the handler, on this connection or before
  #delivered = 0; // everything up to here has come on this connection: the server takes no ack beyond
  #acked = 0; // the server was told up to here, on this connection
  #unacked = 0;
  #ackTimer;
  #failures = 0;
  #life = 0; // another one when the cursor was moved back: what ends later is of no account

  constructor(client, options, handler, ready) {
    super();
    this.#client = client;
    this.#options = { ackEvery: 64, ackDelayMs: 50, ...options };
    this.#handler = handler;
    this.#ready = ready;
    this.topic = options.topic;
    this.subName = options.subName;
    this.isAttached = false;
  }

  /** Acks through this seq: for handlers with `manualAck`. */
  ack(seq) {
    this.#handled = Math.max(this.#handled, seq);
    this.#ackSoon();
  }

  /** Tells the server now what was handled, of that which this connection has delivered. */
  flush() {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    const seq = Math.min(this.#handled, this.#delivered);
    if (!this.isAttached || seq <= this.#acked) return;
    const frame = { type: 'ack', topic: this.topicId, sub_name: this.subName, seq };
    if (this.#client._send(JSON.stringify(frame))) {
      this.#acked = seq;
      this.#unacked = 0;
    }
  }

  /** Ends it here; the cursor stays on the server. */
  unsubscribe() {
    this.flush();
    this.#leave();
  }

  #leave() {
    // One that is not attached may be so soon.
    if (!this._ended) this.#sendUnsubscribe();
    this._end(undefined);
  }

  #sendUnsubscribe() {
    const frame = { type: 'unsubscribe', topic: this.topicId ?? this.topic, sub_name: this.subName, ref: LEAVING };
    this.#client._send(JSON.stringify(frame));
  }

  _attach() {
    if (this._ended) return;
    this._ref = this.#client._reference();
    const isFirst = this.topicId === undefined;
    const { fromSeq, seek, maxInFlight, topic, subName } = this.#options;
    const text = toJson({
      type: 'subscribe',
      topic: this.topicId ?? topic,
      sub_name: subName,
      // The cursor knows better once there is one.
      from_seq: isFirst ? fromSeq : undefined,
      seek: isFirst && seek ? true : undefined,
      max_in_flight: maxInFlight,
      ref: this._ref,
    }, 'the subscription');
    // An epoch may be larger than a number of JavaScript, so it stays a text.
    const epoch = this.epoch === undefined ? '' : `,"epoch":${this.epoch}`;
    this.#client._send(`${text.slice(0, -1)}${epoch}}`);
  }

  _detach() {
    this.isAttached = false;
    this.#waiting = [];
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
  }

  _handleSubscribed(frame, text) {
    if (this._ended) return;
    const epoch = /"epoch":(\d+)/.exec(text)?.[1];
    const isSameLog = this.epoch === undefined || epoch === this.epoch;
    // Further back than the acks that can have been lost, the cursor was moved on purpose.
    const { maxInFlight = WINDOW } = this.#options;
    const resumes = isSameLog && this.#handled - frame.cursor <= maxInFlight;
    this.epoch = epoch;
    this.topicId = frame.topic;
    this.boundName = frame.sub_name; // the server may put the `sub` of the token before it
    this.id = frame.subscription_id;
    this.isAttached = true;
    this.#acked = this.#delivered = frame.cursor;
    this.#unacked = 0;
    if (!resumes) this.#rewind(frame.cursor + 1);
    this.#handled = Math.max(this.#handled, frame.cursor);
    this._tell('subscribed', frame);
    this.#ready.resolve(this);
  }

  _handleMessage(frame) {
    // What was on its way while we left: it comes again, and does not belong to the new binding.
    if (!this.isAttached) return;
    // Somebody has moved the cursor back: it is to be handled again.
    if (frame.seq <= this.#delivered) this.#rewind(frame.seq);
    this.#delivered = frame.seq;
    this.#waiting.push(frame);
    if (!this.#running) this.#run();
  }

  /** What is at `seq` and behind it is to be handled, whatever was before. */
  #rewind(seq) {
    this.#life += 1;
    this.#waiting = [];
    this.#handled = Math.min(this.#handled, seq - 1);
    this.#acked = Math.min(this.#acked, seq - 1);
  }

  async #run() {
    this.#running = true;
    while (this.#waiting.length) {
      const frame = this.#waiting.shift();
      // It was handled before the connection broke, and only its ack was lost.
      if (frame.seq <= this.#handled) {
        this.#ackSoon();
        continue;
      }
      const life = this.#life;
      const ack = () => life === this.#life && this.ack(frame.seq);
      try {
        await this.#handler?.({ ...frame, ack });
      } catch (error) {
        this.#failed(error);
        break;
      }
      this.#failures = 0;
      if (!this.#options.manualAck) ack();
    }
    this.#running = false;
    if (this.#waiting.length) this.#run();
  }

  /** A handler that fails gets its message again: from the cursor, after a while. */
  #failed(error) {
    this._tell('error', error);
    if (!this.isAttached) return;
    this.flush();
    this.#bindAgain();
  }

  #bindAgain() {
    this.#sendUnsubscribe();
    this._detach();
    const wait = backoffMs(this.#failures, this.#client.options);
    this.#failures += 1;
    this.#client._after(wait, () => this._attach());
  }

  #ackSoon() {
    this.#unacked += 1;
    const { ackEvery, ackDelayMs, maxInFlight = WINDOW } = this.#options;
    // A window that is full before the batch would wait for the timer.
    if (Math.min(ackEvery, Math.max(1, maxInFlight >> 1)) <= this.#unacked) this.flush();
    else this.#ackTimer ??= setTimeout(() => this.flush(), ackDelayMs);
  }

  _handleGap(frame) {
    if (frame.reason === 'epoch') this.#rewind(this.#acked + 1);
    // What will not come is passed by the next ack.
    if (this.#delivered < frame.to) this.#delivered = frame.to;
    this._tell('gap', { from: frame.from, to: frame.to, reason: frame.reason });
  }

  _handleUnsubscribed(frame) {
    // Without a reason it is the answer to our own question.
    if (frame.reason === undefined || !this.isAttached) return;
    this._end(new TidegateError(frame.reason, `the subscription ended: ${frame.reason}`));
  }

  /** The server and this side disagree on what was delivered: both begin again at the cursor. */
  _handleRefused(error) {
    if (error.code === 'ack_ahead' && this.isAttached) this.#bindAgain();
  }

  /** By another name it is a topic that this connection has. */
  _leaveAs(error) {
    this.#sendUnsubscribe();
    this._end(error);
  }

  /** Nobody attached it in time: whether the server does later is of no use to anybody. */
  _unlessAttached() {
    if (!this.isAttached && this.topicId === undefined) this.#leave();
  }

  /** Refused before it was attached. Whether somebody waits for it and so is told. */
  _refuse(error) {
    const isAwaited = !this.#ready.isSettled;
    this._end(error);
    return isAwaited;
  }

  _end(error, isQuiet = false) {
    if (this._ended) return;
    this._ended = true;
    this._detach();
    this.#client._forget(this);
    this.#ready.reject(error ?? new TidegateError('unsubscribed', 'unsubscribed by this side'), isQuiet || !error);
    this._tell('end', error);
  }
}

/** The `ref` of what needs no answer, be it a refusal. */
export const LEAVING = 'leaving';

/** How many messages the server sends without an ack, where nothing else was said. */
const WINDOW = 256;
