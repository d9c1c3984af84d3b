// Promises that always settle: by an answer, in time, or because the caller has given up. Knows no
// frame and no socket.

/** Knows whether anybody listens to it. */
class Answer extends Promise {
  static get [Symbol.species]() {
    return Promise;
  }

  then(...listeners) {
    this.isHeard = true;
    return super.then(...listeners);
  }
}

/** A promise that is settled from outside. `report` gets the failure that nobody listened to. */
export class Waiting {
  #resolve;
  #reject;
  #report;
  #timer;
  #unfollow;
  #ends = [];
  isSettled = false;

  constructor(report = () => {}) {
    this.#report = report;
    this.promise = new Answer((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    Promise.prototype.then.call(this.promise, undefined, () => {});
  }

  /** Fails with `error()` after so many milliseconds, counted from now. */
  within(ms, error) {
    clearTimeout(this.#timer);
    // A timer cannot be told a longer time; what is longer is as good as for ever.
    if (!this.isSettled && ms <= TIMER_MS_MAX) this.#timer = setTimeout(() => this.reject(error()), ms);
    return this;
  }

  /** Fails as soon as `signal` is aborted, with its reason. */
  follow(signal) {
    if (!signal || this.isSettled) return this;
    const abort = () => this.reject(signal.reason);
    if (signal.aborted) {
      abort();
      return this;
    }
    signal.addEventListener('abort', abort, { once: true });
    this.#unfollow = () => signal.removeEventListener('abort', abort);
    return this;
  }

  /** Calls `end` when it has settled, at once where it has. */
  finally(end) {
    if (this.isSettled) end();
    else this.#ends.push(end);
    return this;
  }

  resolve(value) {
    if (this.#settle()) this.#resolve(value);
  }

  /** `isQuiet`: whose doing it was knows without a report. */
  reject(error, isQuiet = false) {
    if (!this.#settle()) return;
    this.#reject(error);
    if (isQuiet || this.promise.isHeard) return;
    // Whoever was given the promise just now has not yet had the time to listen.
    setTimeout(() => this.promise.isHeard || this.#report(error), 0);
  }

  #settle() {
    if (this.isSettled) return false;
    this.isSettled = true;
    clearTimeout(this.#timer);
    this.#unfollow?.();
    for (const end of this.#ends.splice(0)) end();
    return true;
  }
}

const TIMER_MS_MAX = 2 ** 31 - 1;
