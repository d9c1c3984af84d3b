// Types of client.js; a test compiles a use of each against it and compares the exported names.

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** A token, or where to get one; `renew` says that the last one has expired or soon will. */
export type TokenSource = string | ((reason: { renew: boolean }) => string | Promise<string>);

export interface Options {
  token?: TokenSource;
  /** For Node below 22: that of the package `ws`. */
  WebSocket?: unknown;
  fetch?: typeof globalThis.fetch;
  /** Where the server's `/` is, for REST, if not at `/` of the same host: `https://host/prefix`. */
  restUrl?: string | URL;
  /** The first wait before a reconnect is between 0 and this; default 500. */
  backoffMsMin?: number;
  /** No wait is longer; default 30000. */
  backoffMsMax?: number;
  /** How often in a row it tries to come back before it gives up, tokens that fail included; default: for ever. */
  attemptsMax?: number;
  /** Open for so long, the next wait is a first one again; default 5000. */
  stableMs?: number;
  /** A token and a handshake that take longer are a failed attempt; default 10000. */
  handshakeMsMax?: number;
  /** So long `connect()` waits to be open; default 60000. */
  connectMsMax?: number;
  /** An answer that takes longer is an error; default 10000. */
  requestMsMax?: number;
  /** A request that waits longer for a connection is an error; default 60000. */
  offlineMsMax?: number;
  /** Silence for so long is asked about; default 25000, 0 is off. */
  pingIntervalMs?: number;
  /** Silence for so much longer ends the connection; default 10000. */
  pongMsMax?: number;
  /** Requests that wait for a connection or an answer; default 16384. */
  queueMax?: number;
  /** Publishes on their way at once; default 256. What else waits goes out in its order. */
  inFlightMax?: number;
  /** A source of tokens is not asked to renew more often; default 5000. */
  renewMsMin?: number;
  random?: () => number;
}

/** How long one call may take, and what gives it up. */
export interface Limits {
  /** In place of `requestMsMax` and `offlineMsMax`. */
  timeoutMs?: number;
  /** Aborted, the promise rejects with its reason. */
  signal?: AbortSignal;
}

export type State = 'idle' | 'connecting' | 'open' | 'waiting' | 'closed';

export class TidegateError extends Error {
  constructor(code: string | number, message: string, details?: object);
  readonly code: string | number;
  readonly topic?: string;
  readonly subName?: string;
  readonly status?: number;
  readonly retryAfterS?: number;
  readonly closeCode?: number;
  readonly errors?: Json;
  /** Of a `timeout`: the option that set the limit, and its value. */
  readonly key?: string;
  readonly limit?: number;
  /** Of a publish that timed out: whether it may be stored. */
  readonly wasSent?: boolean;
}

export type Off = () => void;

/** What to do after a close code: 4401 asks for a new token, 1000 and 440x end it, others retry. */
export function afterClose(code: number): { action: 'stop' | 'retry' | 'renew'; attempt?: number; policy?: boolean };
export function backoffMs(attempt: number, options?: Options): number;

interface ConnectionEvents {
  open: () => void;
  close: (close: { code: number; reason: string }) => void;
  state: (state: State) => void;
  /** What no promise tells, and what a promise tells that nobody listens to. */
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
  /** Connects, and again whenever that is lost; a promise that times out ends no trying. */
  connect(limits?: Limits): Promise<void>;
  /** Code 1000 or 3000 to 4999; others are 1000. A reason is cut at 123 bytes. */
  close(code?: number, reason?: string): void;
  /** How many milliseconds a question and its answer take. */
  ping(limits?: Limits): Promise<number>;
}

export class Rest {
  /** Where the server's `/` is; of the address of a mount (ws:, wss:) only the host counts. */
  constructor(base: string | URL, options?: Pick<Options, 'token' | 'fetch' | 'requestMsMax'>);
  request<T = unknown>(method: string, path: string, body?: unknown, limits?: Limits): Promise<T>;
  push(topic: string, event: string, payload: unknown, limits?: Limits): Promise<object>;
  presence(topic: string, limits?: Limits): Promise<Presence>;
  connections(limits?: Limits): Promise<{ count: number; connections: ConnectionInfo[] }>;
  /** Needs the role `admin`. */
  disconnect(id: string, limits?: Limits): Promise<string>;
  topic(name: string, limits?: Limits): Promise<TopicInfo>;
  topics(limits?: Limits): Promise<unknown>;
  deleteTopic(id: string, limits?: Limits): Promise<string>;
  publish(id: string, payload: unknown, options?: { idempotencyKey?: string } & Limits):
    Promise<{ topic: string; seq: number }>;
  messages<Payload = Json>(id: string, range?: { fromSeq?: number; limit?: number } & Limits):
    Promise<{ messages: { seq: number; payload: Payload; ts: number }[] }>;
  subscriptions(of?: { topic?: string; subName?: string } & Limits): Promise<unknown>;
  deleteSubscription(id: string, limits?: Limits): Promise<string>;
}

export interface Presence { count: number; members: { conn_id: number; meta: Json }[] }
export interface ConnectionInfo { id: string; path: string; conn_id: number | null; sub: string | null; peer: string | null }
export interface TopicInfo { id: string; name: string; ns: string; created_at: unknown; first_seq: number; last_seq: number }

export interface Push<Payload = Json, Event extends string = string> {
  type: 'push';
  topic: string;
  event: Event;
  payload: Payload;
}

/** Any of the pushes of a map from events to payloads. */
export type PushOf<Events> = { [Event in keyof Events & string]: Push<Events[Event], Event> }[keyof Events & string];

export interface PresenceChange { type: 'presence'; topic: string; joined: Json[]; left: Json[] }

/** `Events`: what is pushed and sent, by the names of events: `RelayClient<{ said: { text: string } }>`. */
export class RelayClient<Events extends object = Record<string, Json>> extends Connection<ConnectionEvents & {
  lagged: (lagged: { topic: string; missed: number }) => void;
  presence: (change: PresenceChange) => void;
}> {
  constructor(url: string | URL, options?: Options);
  /** `presence` asks for joins and leaves, `last` for the last push, of servers that have them. */
  subscribe<P = PushOf<Events>>(topic: string, listener?: (push: P) => void,
    options?: { presence?: boolean; last?: boolean } & Limits): Promise<RelaySubscription<P>>;
  send<Event extends keyof Events & string>(topic: string, event: Event, payload?: Sent<Events, Event>): boolean;
  push<Event extends keyof Events & string>(topic: string, event: Event, payload?: Sent<Events, Event>,
    limits?: Limits): Promise<object>;
  presence(topic: string, limits?: Limits): Promise<Presence>;
}

/** Without a map of events anything that JSON can say may be sent, interfaces too. */
type Sent<Events, Event extends keyof Events> = string extends keyof Events ? unknown : Events[Event];

export interface RelaySubscription<P = Push> {
  readonly topic: string;
  on(name: 'message', listener: (push: P) => void): Off;
  on(name: 'lagged', listener: (missed: number) => void): Off;
  on(name: 'presence', listener: (change: PresenceChange) => void): Off;
  on(name: 'end', listener: (error: TidegateError) => void): Off;
  unsubscribe(): void;
}

export interface Published { topic: string; seq: number; duplicate: boolean }

export interface SubscribeOptions extends Limits {
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

export interface Message<Payload = Json> {
  type: 'message';
  topic: string;
  seq: number;
  payload: Payload;
  ts?: number;
  redelivered?: boolean;
  /** Acks everything up to this message. */
  ack(): void;
}

export class DurableClient extends Connection {
  constructor(url: string | URL, options?: Options);
  /** Rejects with `unknown_outcome` if the connection broke before the answer, unless it has a key. */
  publish(topic: string, payload: unknown, options?: { idempotencyKey?: string } & Limits): Promise<Published>;
  subscribe<Payload = Json>(options: SubscribeOptions, handler?: (message: Message<Payload>) => unknown):
    Promise<DurableSubscription>;
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

/** What a gateway speaks: what it is asked, and what it says by itself. */
export interface EventMap {
  /** By the names of events: `{ say: { data: Say; answer: Said } }`. */
  requests: object;
  /** By the names of events: `{ said: Said }`. */
  events: object;
}

/** Any event with any data. */
export interface AnyEvents extends EventMap { requests: {}; events: {}; any: true }

type Names<Map> = keyof Map & string;
type Untyped<M> = M extends { any: true } ? string : never;
type DataOf<Requests, Event extends keyof Requests> = Requests[Event] extends { data: infer Data } ? Data : null;
type AnswerOf<Requests, Event extends keyof Requests> = Requests[Event] extends { answer: infer Answer } ? Answer : null;
type Data<Requests, Event extends keyof Requests> = null extends DataOf<Requests, Event>
  ? [data?: DataOf<Requests, Event>, limits?: Limits] : [data: DataOf<Requests, Event>, limits?: Limits];

export class EventClient<M extends EventMap = AnyEvents> extends Connection {
  constructor(url: string | URL, options?: Options);
  onEvent<Event extends Names<M['events']>>(event: Event, listener: (data: M['events'][Event]) => void): Off;
  onEvent(event: '*', listener: (event: string, data: Json) => void): Off;
  onEvent<Data = Json>(event: Untyped<M>, listener: (data: Data) => void): Off;
  emit<Event extends Names<M['requests']>>(event: Event, ...data: Data<M['requests'], Event>): boolean;
  emit(event: Untyped<M>, data?: unknown): boolean;
  request<Event extends Names<M['requests']>>(event: Event, ...data: Data<M['requests'], Event>):
    Promise<AnswerOf<M['requests'], Event>>;
  request<T = Json>(event: Untyped<M>, data?: unknown, limits?: Limits): Promise<T>;
}
