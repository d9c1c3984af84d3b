// Named events. Knows nothing of what they tell.

/** Named events; a listener that throws harms nobody else. */
export class Emitter {
  #listeners = new Map();

  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => this.#listeners.get(name)?.delete(listener);
  }

  _hears(name) {
    return 0 < (this.#listeners.get(name)?.size ?? 0);
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
