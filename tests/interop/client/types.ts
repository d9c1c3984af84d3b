// Compiled and never run: each name of the client as a user would write it.

import {
  DurableClient, EventClient, RelayClient, Rest, TidegateError, afterClose, backoffMs,
} from './tidegate.js';

export async function use(url: string): Promise<void> {
  const token = async ({ renew }: { renew: boolean }): Promise<string> => (renew ? 'new' : 'old');
  const relay = new RelayClient(url, { token, backoffMsMin: 100 });
  relay.on('close', ({ code, reason }) => console.log(code + 1, reason.length));
  relay.on('lagged', ({ missed }) => missed + 1);
  await relay.connect();
  const subscription = await relay.subscribe('t', (push) => console.log(push.event, push.payload));
  subscription.on('lagged', (missed) => missed + 1);
  const sent: boolean = relay.send('t', 'e', { text: ['x', 1, null] });
  const { count } = await relay.presence('t');
  const durable = new DurableClient(url);
  const { seq } = await durable.publish('t', sent, { idempotencyKey: 'k' });
  const cursor = await durable.subscribe({ topic: 't', subName: 's', fromSeq: 0 }, async (one) => one.ack());
  cursor.on('gap', ({ from, to }) => to - from);
  const events = new EventClient(url);
  const online = await events.request<number>('presence');
  const rest = new Rest(url, { token: 'x' });
  const { connections } = await rest.connections();
  console.log(seq + count + online + backoffMs(1), connections[0]?.peer, afterClose(1000).action);
  // @ts-expect-error a topic is a string
  await relay.subscribe(1);
  throw new TidegateError('x', 'y');
}
