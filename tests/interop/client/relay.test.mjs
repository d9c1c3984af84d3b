// The relay dialect and REST of the client against the server.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { client, start, within } from './fake.mjs';

const { RelayClient } = client;
const { TIDEGATE_ADDRESS: address, TIDEGATE_TOKEN: token } = process.env;
const url = `ws://${address}/ws`;

// C-06, C-07
test('subscribe, message, push over REST, presence, ping, unsubscribe', async (t) => {
  const relay = start(t, RelayClient, url, { token });
  await relay.connect();
  const pushes = [];
  const subscription = await relay.subscribe('chat:lobby', ({ event, payload }) => pushes.push([event, payload]));
  assert.ok(relay.send('chat:lobby', 'say', { n: 1 }));
  assert.ok(await relay.ping() < 5000);
  await relay.push('chat:lobby', 'rest', [2]);
  assert.ok(await relay.ping() < 5000);
  assert.deepEqual(pushes, [['say', { n: 1 }], ['rest', [2]]]);
  const { count, members } = await relay.presence('chat:lobby');
  assert.deepEqual([count, members[0].meta], [1, { sub: 'ada' }]);
  subscription.unsubscribe();
  await relay.ping();
  assert.equal((await relay.presence('chat:lobby')).count, 0);
});

//
test('a message to a topic that is not heard is an error with its code', async (t) => {
  const relay = start(t, RelayClient, url, { token });
  await relay.connect();
  const error = within('error', (resolve) => relay.on('error', resolve));
  relay.send('elsewhere', 'e', 1);
  assert.equal((await error).code, 'not_subscribed');
});

//
test('the limit on subscriptions rejects the one too many', async (t) => {
  const relay = start(t, RelayClient, url, { token });
  await relay.connect();
  await Promise.all(Array.from({ length: 50 }, (_, index) => relay.subscribe(`t${index}`)));
  await assert.rejects(relay.subscribe('t50'), { code: 'subscription_limit' });
});

// C-09
test('who is closed by an admin comes back with its topics', async (t) => {
  const relay = start(t, RelayClient, url, { token });
  await relay.connect();
  const pushes = [];
  await relay.subscribe('kept', ({ payload }) => pushes.push(payload));
  const lost = within('close', (resolve) => relay.on('close', resolve));
  const { connections } = await relay.rest.connections();
  for (const { id } of connections) await relay.rest.disconnect(id);
  assert.equal((await lost).code, 1008);
  await within('open', (resolve) => relay.on('open', resolve));
  await relay.ping();
  await relay.push('kept', 'e', 'again');
  await relay.ping();
  assert.deepEqual(pushes, ['again']);
});

// D-09
test('a bad token never opens', async (t) => {
  const relay = start(t, RelayClient, url, { token: 'bad', attemptsMax: 2 });
  await assert.rejects(relay.connect(), { name: 'TidegateError', closeCode: 1006 });
  await assert.rejects(relay.rest.presence('x'), { status: 401 });
});
