// Compiled and never run: each name of the client as a user would write it.

import {
  DurableClient, EventClient, RelayClient, Rest, TidegateError, afterClose, backoffMs,
} from './tidegate.js';

// An interface has no index, so it is not `Json` to the compiler.
interface Said { text: string }
interface Chat {
  requests: { say: { data: Said; answer: null }; presence: { answer: number } };
  events: { said: Said; welcome: { conn_id: number } };
}

export async function use(url: string): Promise<void> {
  const token = async ({ renew }: { renew: boolean }): Promise<string> => (renew ? 'new' : 'old');
  const relay = new RelayClient(url, { token, backoffMsMin: 100, restUrl: 'https://h/prefix' });
  relay.on('close', ({ code, reason }) => console.log(code + 1, reason.length));
  relay.on('lagged', ({ missed }) => missed + 1);
  await relay.connect({ timeoutMs: 1_000, signal: AbortSignal.timeout(1) });
  const subscription = await relay.subscribe('t', (push) => console.log(push.event, push.payload));
  subscription.on('lagged', (missed) => missed + 1);
  const sent: boolean = relay.send('t', 'e', { text: ['x', 1, null] });
  const said: Said = { text: 'x' };
  relay.send('t', 'e', said);
  await relay.subscribe('t', (push: { payload: Said }) => push.payload.text.length);
  const typed = new RelayClient<{ said: Said; gone: null }>(url);
  await typed.subscribe('t', (push) => (push.event === 'said' ? push.payload.text.length : push.payload), { last: true });
  typed.send('t', 'said', said);
  // @ts-expect-error not an event of the map
  typed.send('t', 'sad', said);
  // @ts-expect-error not what the event carries
  typed.send('t', 'said', 7);
  const { count } = await relay.presence('t');
  const durable = new DurableClient(url);
  const { seq } = await durable.publish('t', said, { idempotencyKey: 'k', timeoutMs: 5 });
  const cursor = await durable.subscribe({ topic: 't', subName: 's', fromSeq: 0 }, async (one) => one.ack());
  await durable.subscribe<Said>({ topic: 't', subName: 's' }, ({ payload }) => payload.text.length);
  cursor.on('gap', ({ from, to }) => to - from);
  const events = new EventClient(url);
  const online = await events.request<number>('presence');
  events.onEvent('*', (name, data) => console.log(name, data));
  events.onEvent<Said>('said', ({ text }) => text.length);
  events.emit('say', said);
  const chat = new EventClient<Chat>(url);
  const present: number = await chat.request('presence');
  await chat.request('say', said, { timeoutMs: 1 });
  chat.onEvent('welcome', ({ conn_id }) => conn_id + 1);
  // @ts-expect-error no such event
  await chat.request('shout', said);
  // @ts-expect-error it needs its data
  chat.emit('say');
  // @ts-expect-error the server says no such thing
  chat.onEvent('shouted', () => {});
  const rest = new Rest(url, { token: 'x', requestMsMax: 1 });
  const { connections } = await rest.connections({ timeoutMs: 1 });
  console.log(seq + count + online + present + backoffMs(1) + await events.ping(), connections[0]?.peer, afterClose(1000).action);
  console.log(sent);
  // @ts-expect-error a topic is a string
  await relay.subscribe(1);
  throw new TidegateError('x', 'y');
}
