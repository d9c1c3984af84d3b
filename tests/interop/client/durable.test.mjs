// The durable dialect of the client against a server that answers what the protocol says.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fake, client, start, within } from './fake.mjs';

const T = '0190c0de-0000-7000-8000-000000000001';
const { DurableClient } = client;

const subscribed = (peer, ask, cursor, epoch = '7') => peer.say(
  `{"type":"subscribed","topic":"${T}","sub_name":"${ask.sub_name}","subscription_id":"s","cursor":${cursor},`
  + `"next_seq":${cursor + 1},"first_seq":1,"last_seq":9,"epoch":${epoch},"resumed":false,"ref":"${ask.ref}"}`);
const message = (seq) => ({ type: 'message', topic: T, seq, payload: { n: seq } });

// B-09, B-11, B-12, D-33
test('messages go to the handler in order and acks go out in batches', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url, { token: 'abc' });
  durable.connect();
  const peer = await fake.peer();
  assert.deepEqual(peer.protocols, ['tidegate.durable.v1', 'bearer', 'abc']);
  const seen = [];
  const agreed = durable.subscribe({ topic: 'orders', subName: 'A', fromSeq: 0, ackEvery: 3, ackDelayMs: 30 },
    ({ seq }) => { seen.push(seq); });
  const ask = await peer.next();
  assert.deepEqual([ask.topic, ask.sub_name, ask.from_seq], ['orders', 'A', 0]);
  subscribed(peer, ask, 0);
  const subscription = await agreed;
  assert.deepEqual([subscription.topicId, subscription.id, subscription.epoch], [T, 's', '7']);
  for (let seq = 1; seq <= 4; seq += 1) peer.say(message(seq));
  assert.deepEqual(await peer.next(), { type: 'ack', topic: T, sub_name: 'A', seq: 3 });
  assert.deepEqual(await peer.next(), { type: 'ack', topic: T, sub_name: 'A', seq: 4 });
  assert.deepEqual(seen, [1, 2, 3, 4]);
});

// B-16, D-32, D-35
test('after a reconnect it goes on at the cursor and handles nothing twice', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url);
  durable.connect();
  let peer = await fake.peer();
  const seen = [];
  const agreed = durable.subscribe({ topic: T, subName: 'A', fromSeq: 1, ackEvery: 1 }, ({ seq }) => { seen.push(seq); });
  subscribed(peer, await peer.next(), 0, '18446744073709551615');
  await agreed;
  peer.say(message(1));
  await peer.next();
  peer.say(message(2));
  await peer.next();
  peer.drop();
  peer = await fake.peer();
  const ask = await peer.next();
  assert.deepEqual([ask.topic, ask.from_seq, ask.epoch], [T, undefined, 18446744073709551615]);
  subscribed(peer, ask, 1, '18446744073709551615');
  // The ack of 2 was lost: 2 comes again and is acked, then and no sooner, without being handled again.
  await new Promise((resolve) => setTimeout(resolve, 80));
  assert.deepEqual(peer.frames, []);
  peer.say(message(2));
  assert.deepEqual(await peer.next(), { type: 'ack', topic: T, sub_name: 'A', seq: 2 });
  peer.say(message(3));
  assert.equal((await peer.next()).seq, 3);
  assert.deepEqual(seen, [1, 2, 3]);
});

// D-30
test('a cursor that somebody moves back has its messages handled again', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url);
  durable.connect();
  const peer = await fake.peer();
  const seen = [];
  const agreed = durable.subscribe({ topic: T, subName: 'A', ackEvery: 1 }, ({ seq }) => { seen.push(seq); });
  subscribed(peer, await peer.next(), 0);
  await agreed;
  for (const seq of [1, 2, 1]) {
    peer.say(message(seq));
    assert.equal((await peer.next()).seq, seq);
  }
  assert.deepEqual(seen, [1, 2, 1]);
});

test('a handler that fails gets its message again', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url);
  durable.connect();
  const peer = await fake.peer();
  let calls = 0;
  const agreed = durable.subscribe({ topic: T, subName: 'A', ackEvery: 1 }, ({ seq }) => {
    calls += 1;
    if (calls === 2) throw new Error(`no ${seq}`);
  });
  subscribed(peer, await peer.next(), 0);
  const subscription = await agreed;
  const errors = [];
  subscription.on('error', (error) => errors.push(error.message));
  peer.say(message(1));
  assert.equal((await peer.next()).seq, 1);
  peer.say(message(2));
  peer.say(message(3));
  assert.equal((await peer.next()).type, 'unsubscribe');
  peer.say({ type: 'unsubscribed', topic: T, sub_name: 'A' });
  subscribed(peer, await peer.next(), 1);
  peer.say(message(2));
  assert.deepEqual(await peer.next(), { type: 'ack', topic: T, sub_name: 'A', seq: 2 });
  assert.deepEqual([calls, errors], [3, ['no 2']]);
});

// B-10, D-27, D-08
test('a publish resolves by its ref, by order where there is none, and rejects with a code', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url);
  const early = durable.publish(T, 'before there is a connection');
  durable.connect();
  const peer = await fake.peer();
  const [first, second] = [await peer.next(), durable.publish(T, { n: 42.5 })];
  const third = durable.publish(T, 3);
  const asked = [first, await peer.next(), await peer.next()];
  peer.say({ type: 'pub_ack', topic: T, seq: 1 });
  assert.deepEqual(await early, { topic: T, seq: 1, duplicate: false });
  peer.say({ type: 'error', message: 'the disk is full', code: 'storage_full', ref: asked[2].ref });
  await assert.rejects(third, { code: 'storage_full' });
  peer.say({ type: 'pub_ack', topic: T, seq: 2, duplicate: true, ref: asked[1].ref });
  assert.deepEqual(await second, { topic: T, seq: 2, duplicate: true });
});

// D-27
test('with a key an unanswered publish is sent again, without one its outcome is unknown', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url);
  await Promise.all([durable.connect(), fake.peer().then((peer) => { fake.first = peer; })]);
  const keyed = durable.publish(T, 1, { idempotencyKey: 'k' });
  const bare = durable.publish(T, 2);
  await fake.first.next();
  await fake.first.next();
  fake.first.drop();
  await assert.rejects(bare, { code: 'unknown_outcome' });
  const peer = await fake.peer();
  const again = await peer.next();
  assert.deepEqual([again.payload, again.idempotency_key], [1, 'k']);
  peer.say({ type: 'pub_ack', topic: T, seq: 8, duplicate: true, ref: again.ref });
  assert.equal((await keyed).seq, 8);
});

// D-31, D-36, D-37
test('gaps are told, and who is taken over does not come back by itself', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url);
  durable.connect();
  const peer = await fake.peer();
  const agreed = durable.subscribe({ topic: T, subName: 'A' }, () => {});
  subscribed(peer, await peer.next(), 0);
  const subscription = await agreed;
  const gap = within('gap', (resolve) => subscription.on('gap', resolve));
  peer.say({ type: 'gap', topic: T, sub_name: 'A', from: 1, to: 4, reason: 'retention' });
  assert.deepEqual(await gap, { from: 1, to: 4, reason: 'retention' });
  const end = within('end', (resolve) => subscription.on('end', resolve));
  peer.say({ type: 'unsubscribed', topic: T, sub_name: 'A', reason: 'taken_over' });
  assert.equal((await end).code, 'taken_over');
  peer.drop();
  const next = await fake.peer();
  durable.publish(T, 1).catch(() => {});
  assert.equal((await next.next()).type, 'publish');
});

test('what is refused rejects, and requests that wait are bounded', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url, { queueMax: 1 });
  durable.publish(T, 1).catch(() => {});
  await assert.rejects(durable.publish(T, 2), { code: 'overloaded' });
  durable.connect();
  const peer = await fake.peer();
  await peer.next();
  const agreed = durable.subscribe({ topic: 'of another tenant', subName: 'A' }, () => {});
  const ask = await peer.next();
  peer.say({ type: 'error', message: 'unknown topic', code: 'unknown_topic', ref: ask.ref });
  await assert.rejects(agreed, { code: 'unknown_topic' });
});
