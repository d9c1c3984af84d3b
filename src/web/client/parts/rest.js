// REST of a server, with the tenant of the token. Knows routes and documents.

import { TidegateError, checked, toJson } from './errors.js';
import { DEFAULTS, tokenOf } from './options.js';
import { Waiting } from './waiting.js';

export class Rest {
  /**
   * `base` is where the server's `/` is: `https://host/prefix` behind a proxy that takes the prefix
   * away. Of the address of a mount (ws:, wss:) only the host counts.
   */
  constructor(base, options = {}) {
    const url = new URL(base, globalThis.location?.href);
    const isMount = /^ws/.test(url.protocol);
    url.protocol = url.protocol.replace(/^ws/, 'http');
    this.base = isMount ? url.origin : `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
    this.options = { ...DEFAULTS, ...options };
  }

  /**
   * Any route. The answer is what its JSON says; a problem document becomes an error. It settles
   * within `timeoutMs`, which is `requestMsMax` if left out.
   */
  async request(method, path, body, { timeoutMs = this.options.requestMsMax, signal } = {}) {
    const text = body === undefined ? undefined : toJson(body, 'the body');
    const late = () => new TidegateError('timeout',
      `no answer to ${method} ${path} within ${timeoutMs} ms (requestMsMax)`,
      { key: 'requestMsMax', limit: timeoutMs });
    const stop = new AbortController();
    const waiting = new Waiting().within(timeoutMs, late).follow(signal);
    waiting.finally(() => stop.abort());
    this.#ask(method, path, text, stop.signal).then(
      (value) => waiting.resolve(value), (error) => waiting.reject(error));
    return waiting.promise;
  }

  async #ask(method, path, body, signal) {
    let answer = await this.#fetch(method, path, body, signal, false);
    // A source may have kept a token that the server no longer takes.
    if (answer.status === 401 && typeof this.options.token === 'function') {
      answer = await this.#fetch(method, path, body, signal, true);
    }
    const text = await answer.text();
    const value = parsed(answer, text);
    if (answer.ok) return value;
    const { title, detail } = typeof value === 'object' && value !== null ? value : {};
    const after = Number(answer.headers.get('retry-after') ?? NaN);
    throw new TidegateError('http', detail ?? title ?? `HTTP ${answer.status}`, {
      status: answer.status, ...(Number.isFinite(after) && { retryAfterS: after }),
    });
  }

  async #fetch(method, path, body, signal, renew) {
    const { fetch = globalThis.fetch } = this.options;
    let bearer;
    try {
      bearer = await tokenOf(this.options, renew);
    } catch (error) {
      throw new TidegateError('token', `no token: ${error?.message ?? error}`, { cause: error });
    }
    const headers = {};
    if (bearer) headers.Authorization = `Bearer ${bearer}`;
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    try {
      return await fetch(`${this.base}${path}`, { method, headers, body, signal });
    } catch (error) {
      throw new TidegateError('disconnected', `cannot reach ${this.base}: ${error.message}`, { cause: error });
    }
  }

  async push(topic, event, payload, options) {
    return this.request('POST', '/v1/relay/push', { topic, event, payload: checked(payload) }, options);
  }

  presence(topic, options) {
    return this.request('GET', `/v1/relay/presence?topic=${encodeURIComponent(topic)}`, undefined, options);
  }

  connections(options) {
    return this.request('GET', '/v1/connections', undefined, options);
  }

  disconnect(id, options) {
    return this.request('DELETE', `/v1/connections/${encodeURIComponent(id)}`, undefined, options);
  }

  /** Makes a durable topic, or finds it. */
  topic(name, options) {
    return this.request('POST', '/v1/topics', { name }, options);
  }

  topics(options) {
    return this.request('GET', '/v1/topics', undefined, options);
  }

  deleteTopic(id, options) {
    return this.request('DELETE', `/v1/topics/${encodeURIComponent(id)}`, undefined, options);
  }

  async publish(id, payload, { idempotencyKey, ...options } = {}) {
    const body = { payload: checked(payload), idempotency_key: idempotencyKey };
    return this.request('POST', `/v1/topics/${encodeURIComponent(id)}/messages`, body, options);
  }

  messages(id, { fromSeq = 1, limit = 100, ...options } = {}) {
    const query = `from_seq=${fromSeq}&limit=${limit}`;
    return this.request('GET', `/v1/topics/${encodeURIComponent(id)}/messages?${query}`, undefined, options);
  }

  subscriptions({ topic, subName, ...options } = {}) {
    const query = new URLSearchParams();
    if (topic !== undefined) query.set('topic', topic);
    if (subName !== undefined) query.set('sub_name', subName);
    return this.request('GET', `/v1/subscriptions?${query}`, undefined, options);
  }

  deleteSubscription(id, options) {
    return this.request('DELETE', `/v1/subscriptions/${encodeURIComponent(id)}`, undefined, options);
  }
}

function parsed(answer, text) {
  if (!text || !/json/.test(answer.headers.get('content-type') ?? '')) return text;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TidegateError('invalid_answer', `the answer is not JSON: ${error.message}`, { status: answer.status });
  }
}
