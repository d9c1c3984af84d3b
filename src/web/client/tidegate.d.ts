// Types of client.js; a test compiles a use of each against it and compares the exported names.

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** A token, or where to get one; `renew` says that the last one has expired or soon will. */
export type TokenSource = string | ((reason: { renew: boolean }) => string | Promise<string>);

export interface Options {
  token?: TokenSource;
  /** For Node below 22: that of the package `ws`. */
  WebSocket?: unknown;
  fetch?: typeof globalThis.fetch;
  /** The first wait before a reconnect is between 0 and this; default 500. */
  backoffMsMin?: number;
  /** No wait is longer; default 30000. */
  backoffMsMax?: number;
  /** Failed attempts in a row before giving up; default: never. */
  attemptsMax?: number;
  /** Open for so long, the next wait is a first one again; default 5000. */
  stableMs?: number;
  /** An answer that takes longer is an error; default 10000. */
  requestMsMax?: number;
  /** Silence for so long is asked about; default 25000, 0 is off. Not on event gateways. */
  pingIntervalMs?: number;
  /** Silence for so much longer ends the connection; default 10000. */
  pongMsMax?: number;
  /** Requests that wait for a connection or an answer; default 1024. */
  queueMax?: number;
  random?: () => number;
}

export type State = 'idle' | 'connecting' | 'open' | 'waiting' | 'closed';

export class TidegateError extends Error {
  constructor(code: string | number, message: string, details?: object);
  readonly code: string | number;
  readonly topic?: string;
  readonly subName?: string;
  readonly status?: number;
  readonly closeCode?: number;
  readonly errors?: Json;
}

export type Off = () => void;

/** What to do after a close code: 4401 asks for a new token, 1000 and 440x end it, others retry. */
export function afterClose(code: number): { action: 'stop' | 'retry' | 'renew'; attempt?: number; policy?: boolean };
export function backoffMs(attempt: number, options?: Options): number;

interface ConnectionEvents {
  open: () => void;
  close: (close: { code: number; reason: string }) => void;
  state: (state: State) => void;
  /** What no promise tells. */
  error: (error: TidegateError) => void;
}

declare abstract class Connection<Events = ConnectionEvents> {
  readonly url: string;
  readonly state: State;
  readonly isOpen: boolean;
  /** Why it is closed for good. */
  readonly error?: TidegateError;
  readonly rest: Rest;
  on<Name extends keyof Events>(name: Name, listener: Events[Name]): Off;
  /** Connects, and again whenever that is lost; rejects when it ends for good before it was open. */
  connect(): Promise<void>;
  close(code?: number, reason?: string): void;
}

export class Rest {
  constructor(base: string | URL, options?: Pick<Options, 'token' | 'fetch'>);
  request<T = unknown>(method: string, path: string, body?: Json): Promise<T>;
  push(topic: string, event: string, payload: Json): Promise<object>;
  presence(topic: string): Promise<Presence>;
  connections(): Promise<{ count: number; connections: ConnectionInfo[] }>;
  /** Needs the role `admin`. */
  disconnect(id: string): Promise<string>;
  topic(name: string): Promise<TopicInfo>;
  topics(): Promise<unknown>;
  deleteTopic(id: string): Promise<string>;
  publish(id: string, payload: Json, options?: { idempotencyKey?: string }): Promise<{ topic: string; seq: number }>;
  messages(id: string, range?: { fromSeq?: number; limit?: number }):
    Promise<{ messages: { seq: number; payload: Json; ts: number }[] }>;
  subscriptions(of?: { topic?: string; subName?: string }): Promise<unknown>;
  deleteSubscription(id: string): Promise<string>;
}

export interface Presence { count: number; members: { conn_id: number; meta: Json }[] }
export interface ConnectionInfo { id: string; path: string; conn_id: number | null; sub: string | null; peer: string | null }
export interface TopicInfo { id: string; name: string; ns: string; created_at: unknown; first_seq: number; last_seq: number }

export interface Push { type: 'push'; topic: string; event: string; payload: Json }

export class RelayClient extends Connection<ConnectionEvents & {
  lagged: (lagged: { topic: string; missed: number }) => void;
}> {
  constructor(url: string | URL, options?: Options);
  subscribe(topic: string, listener?: (push: Push) => void): Promise<RelaySubscription>;
  send(topic: string, event: string, payload?: Json): boolean;
  push(topic: string, event: string, payload?: Json): Promise<object>;
  presence(topic: string): Promise<Presence>;
  ping(): Promise<number>;
}

export interface RelaySubscription {
  readonly topic: string;
  on(name: 'message', listener: (push: Push) => void): Off;
  on(name: 'lagged', listener: (missed: number) => void): Off;
  on(name: 'end', listener: (error: TidegateError) => void): Off;
  unsubscribe(): void;
}

export interface Published { topic: string; seq: number; duplicate: boolean }

export interface SubscribeOptions {
  /** Its id or its name. */
  topic: string;
  subName: string;
  /** Where a new subscription starts: 0 is the earliest message kept; absent, only new ones. */
  fromSeq?: number;
  /** Moves the cursor of an old one there too. */
  seek?: boolean;
  maxInFlight?: number;
  /** Acks after so many messages, default 64 .. */
  ackEvery?: number;
  /** .. or after so many milliseconds, default 50. */
  ackDelayMs?: number;
  /** Nothing is acked but by `ack()`. */
  manualAck?: boolean;
}

export interface Message {
  type: 'message';
  topic: string;
  seq: number;
  payload: Json;
  ts?: number;
  redelivered?: boolean;
  /** Acks everything up to this message. */
  ack(): void;
}

export class DurableClient extends Connection {
  constructor(url: string | URL, options?: Options);
  /** Rejects with `unknown_outcome` if the connection broke before the answer, unless it has a key. */
  publish(topic: string, payload: Json, options?: { idempotencyKey?: string }): Promise<Published>;
  subscribe(options: SubscribeOptions, handler?: (message: Message) => unknown): Promise<DurableSubscription>;
}

export interface DurableSubscription {
  readonly topic: string;
  readonly topicId: string;
  readonly subName: string;
  readonly id: string;
  readonly epoch: string;
  readonly isAttached: boolean;
  ack(seq: number): void;
  flush(): void;
  unsubscribe(): void;
  /** Messages that will not come. */
  on(name: 'gap', listener: (gap: { from: number; to: number; reason: string }) => void): Off;
  /** What the handler threw. */
  on(name: 'error', listener: (error: unknown) => void): Off;
  /** `taken_over`, `deleted`, `topic_deleted`, a refusal; undefined after `unsubscribe()`. */
  on(name: 'end', listener: (error?: TidegateError) => void): Off;
  on(name: 'subscribed', listener: (answer: { cursor: number; next_seq: number; first_seq: number; last_seq: number; resumed: boolean }) => void): Off;
}

export class EventClient extends Connection {
  constructor(url: string | URL, options?: Options);
  onEvent(event: '*', listener: (event: string, data: Json) => void): Off;
  onEvent(event: string, listener: (data: Json) => void): Off;
  emit(event: string, data?: Json): boolean;
  request<T = Json>(event: string, data?: Json): Promise<T>;
}
