// What all dialects share, and the event dialect, against a server that says what a test wants.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Fake, client, start, within } from './fake.mjs';
import { sign } from './sign.mjs';

const { EventClient, RelayClient, afterClose, backoffMs } = client;

test('a wait is anywhere below a ceiling that doubles up to its bound', () => {
  const ceiling = (attempt) => backoffMs(attempt, { random: () => 1, backoffMsMin: 100, backoffMsMax: 1000 });
  assert.deepEqual([0, 1, 2, 3, 4, 99].map(ceiling), [100, 200, 400, 800, 1000, 1000]);
  assert.equal(backoffMs(5, { random: () => 0 }), 0);
});

test('close codes decide whether and when it comes back', () => {
  for (const code of [1000, 1002, 1003, 1007, 4403, 4409]) assert.equal(afterClose(code).action, 'stop');
  for (const code of [1001, 1006, 1008, 1009, 1011, 1012, 1013]) assert.equal(afterClose(code).action, 'retry');
  assert.equal(afterClose(4401).action, 'renew');
  assert.ok(afterClose(1012).attempt < afterClose(1013).attempt);
});

// A herd: who was told together does not come back together.
for (const code of [1001, 1012]) {
  test(`after ${code} they come back one by one`, async (t) => {
    const [count, spreadMs] = [200, 1600];
    const fake = await Fake.start(t);
    const options = { backoffMsMin: spreadMs / 4, backoffMsMax: 30_000, pingIntervalMs: 0 };
    const all = Array.from({ length: count }, () => start(t, RelayClient, fake.url, options));
    for (const one of all) one.connect();
    const peers = [];
    for (let nth = 0; nth < count; nth += 1) peers.push(await fake.peer());
    const toldAt = performance.now();
    for (const peer of peers) peer.socket.close(code, 'the server restarts');
    const waits = [];
    for (let nth = 0; nth < count; nth += 1) {
      await fake.peer();
      waits.push(performance.now() - toldAt);
    }
    // Evenly over all of it a quarter has 50. The bound leaves room for chance and a busy machine.
    const quarters = [0, 0, 0, 0, 0];
    for (const wait of waits) quarters[Math.min(4, Math.floor((4 * wait) / spreadMs))] += 1;
    assert.ok(Math.max(...quarters) < 100, `arrivals by quarter: ${quarters}`);
  });
}

// D-09
test('when the token has expired it comes back with another one', async (t) => {
  const fake = await Fake.start(t);
  const asked = [];
  const token = async ({ renew }) => { asked.push(renew); return `token${asked.length}`; };
  const relay = start(t, RelayClient, fake.url, { token });
  relay.connect();
  const peer = await fake.peer();
  assert.equal(peer.protocols[2], 'token1');
  peer.say({ type: 'token_expiring', seconds: 5 });
  assert.deepEqual(await peer.next(), { type: 'auth', token: 'token2' });
  peer.socket.close(4401, 'token expired');
  assert.equal((await fake.peer()).protocols[2], 'token3');
  assert.deepEqual(asked, [false, true, true]);
});

test('a token that expired while nobody was connected is not shown', async (t) => {
  const fake = await Fake.start(t);
  const exp = Math.floor(Date.now() / 1_000) - 60;
  const asked = [];
  const token = ({ renew }) => { asked.push(renew); return sign('x', renew ? { sub: 'new' } : { sub: '\u00fcb', exp }); };
  const relay = start(t, RelayClient, fake.url, { token });
  relay.connect();
  const shown = (await fake.peer()).protocols[2];
  assert.equal(JSON.parse(Buffer.from(shown.split('.')[1], 'base64url')).sub, 'new');
  assert.deepEqual(asked, [false, true]);
});

test('a token that cannot be renewed ends it with the reason', async (t) => {
  const fake = await Fake.start(t);
  const relay = start(t, RelayClient, fake.url, { token: 'fixed' });
  await relay.connect();
  const closed = within('end', (resolve) => relay.on('state', (state) => state === 'closed' && resolve()));
  (await fake.peer()).socket.close(4401, 'token expired');
  await closed;
  assert.deepEqual([relay.error.code, relay.error.closeCode], ['token_expired', 4401]);
});

test('refused by policy three times in a row it stays away', async (t) => {
  const fake = await Fake.start(t);
  const relay = start(t, RelayClient, fake.url, { stableMs: 60_000 });
  relay.connect();
  for (let time = 0; time < 3; time += 1) (await fake.peer()).socket.close(1008, 'kicked');
  await within('end', (resolve) => relay.on('state', (state) => state === 'closed' && resolve()));
  assert.equal(relay.error.code, 'policy');
});

// D-20
test('relay topics are subscribed again, and a refusal rejects', async (t) => {
  const fake = await Fake.start(t);
  const relay = start(t, RelayClient, fake.url, { pingIntervalMs: 0 });
  relay.connect();
  let peer = await fake.peer();
  const pushes = [];
  const agreed = relay.subscribe('a', ({ event, payload }) => pushes.push([event, payload]));
  assert.deepEqual(await peer.next(), { type: 'subscribe', topic: 'a' });
  peer.say({ type: 'subscribed', topic: 'a' });
  const subscription = await agreed;
  const refused = relay.subscribe('b');
  await peer.next();
  peer.say({ type: 'error', message: 'join rejected: no', code: 'join_rejected', topic: 'b' });
  await assert.rejects(refused, { code: 'join_rejected', topic: 'b' });
  peer.drop();
  peer = await fake.peer();
  assert.deepEqual(await peer.next(), { type: 'subscribe', topic: 'a' });
  peer.say({ type: 'subscribed', topic: 'a' });
  const lagged = within('lagged', (resolve) => subscription.on('lagged', resolve));
  peer.say({ type: 'push', topic: 'a', event: 'e', payload: 1 });
  peer.say({ type: 'lagged', topic: 'a', missed: 3 });
  assert.equal(await lagged, 3);
  assert.deepEqual(pushes, [['e', 1]]);
  subscription.unsubscribe();
  assert.deepEqual(await peer.next(), { type: 'unsubscribe', topic: 'a' });
});

// D-21
test('a connection that is silent is asked, then given up', async (t) => {
  const fake = await Fake.start(t);
  const relay = start(t, RelayClient, fake.url, { pingIntervalMs: 30, pongMsMax: 30 });
  relay.connect();
  const peer = await fake.peer();
  assert.deepEqual(await peer.next(), { type: 'ping' });
  await fake.peer();
});

// M-11, D-13
test('events are answered by id, pushed by name, and fail as errors', async (t) => {
  const fake = await Fake.start(t);
  const events = start(t, EventClient, fake.url);
  await events.connect();
  const peer = await fake.peer();
  const [one, two] = [events.request('presence'), events.request('send', { text: '' })];
  const asked = [await peer.next(), await peer.next()];
  assert.deepEqual(asked[0], { event: 'presence', data: null, id: 1 });
  const typing = within('event', (resolve) => events.onEvent('typing', resolve));
  peer.say({ event: 'typing', data: 'ada' });
  peer.say({ event: 'send', data: { error: 'text must not be empty' }, id: 2 });
  peer.say({ event: 'presence', data: 1, id: 1 });
  assert.equal(await one, 1);
  await assert.rejects(two, { message: 'text must not be empty' });
  assert.equal(await typing, 'ada');
});

test('the types name what the module exports', async () => {
  const types = await readFile(process.env.TIDEGATE_TYPES, 'utf8');
  const named = [...types.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(named.sort(), Object.keys(client).sort());
});
