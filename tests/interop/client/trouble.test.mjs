// What goes wrong: payloads that are not JSON, listeners that send, servers that say nothing, tokens
// that fail. Whatever it is, a promise settles in time and the rest goes on.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { test } from 'node:test';
import { Fake, client, start, within } from './fake.mjs';

const T = '0190c0de-0000-7000-8000-000000000001';
const { DurableClient, EventClient, RelayClient, Rest } = client;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const circular = {};
circular.self = circular;
const unsayable = { 'a BigInt': 1n, 'a circle': circular, 'a function': () => {}, 'a symbol': Symbol('x'),
  'a toJSON that throws': { toJSON() { throw new Error('no'); } } };

/** Reads frames until there have been none for a while. */
async function all(peer, ms = 80) {
  await pause(ms);
  return peer.frames.splice(0);
}

// K1
for (const event of ['state', 'open', 'close']) {
  test(`what is published and subscribed in a listener of \`${event}\` goes out once`, async (t) => {
    const fake = await Fake.start(t);
    const durable = start(t, DurableClient, fake.url);
    let times = 0;
    durable.on(event, (value) => {
      if (event === 'state' && value !== 'open') return;
      if ((times += 1) !== 1) return;
      durable.publish(T, 'once').catch(() => {});
      durable.subscribe({ topic: T, subName: 'A' }).catch(() => {});
    });
    durable.connect();
    let peer = await fake.peer();
    if (event === 'close') {
      peer.drop();
      peer = await fake.peer();
    }
    assert.deepEqual((await all(peer)).map(({ type }) => type).sort(), ['publish', 'subscribe']);
  });

  test(`so it does with relay topics in a listener of \`${event}\``, async (t) => {
    const fake = await Fake.start(t);
    const relay = start(t, RelayClient, fake.url);
    relay.on(event, () => { if (event !== 'state' || relay.state === 'open') relay.subscribe('a').catch(() => {}); });
    relay.connect();
    let peer = await fake.peer();
    if (event === 'close') {
      peer.drop();
      peer = await fake.peer();
    }
    assert.deepEqual(await all(peer), [{ type: 'subscribe', topic: 'a' }]);
  });
}

test('what a listener closes stays closed', async (t) => {
  for (const event of ['open', 'close', 'state', 'error']) {
    const fake = await Fake.start(t);
    let asked = 0;
    const token = () => { if ((asked += 1) === 1 && event === 'error') throw new Error('none'); return 'x'; };
    const relay = start(t, RelayClient, fake.url, { token });
    relay.on(event, () => relay.close());
    relay.connect().catch(() => {});
    if (event === 'close') (await fake.peer()).drop();
    await pause(100);
    assert.equal(relay.state, 'closed', event);
    assert.ok(asked <= 1);
    assert.equal(fake.server.clients.size, 0, event);
  }
});

// K2
for (const [name, payload] of Object.entries(unsayable)) {
  test(`${name} is refused alone, before and after a reconnect`, async (t) => {
    const fake = await Fake.start(t);
    const durable = start(t, DurableClient, fake.url);
    const bad = durable.publish(T, payload);
    const good = durable.publish(T, 'good', { idempotencyKey: 'k' });
    await assert.rejects(bad, { code: 'invalid_payload' });
    durable.connect();
    let peer = await fake.peer();
    assert.equal((await peer.next()).payload, 'good');
    await assert.rejects(durable.publish(T, payload), { code: 'invalid_payload' });
    await assert.rejects(durable.publish(T, 1, { idempotencyKey: payload }), { code: 'invalid_payload' });
    peer.drop();
    peer = await fake.peer();
    const again = await peer.next();
    peer.say({ type: 'pub_ack', topic: T, seq: 1, ref: again.ref });
    assert.equal((await good).seq, 1);
    const relay = start(t, RelayClient, fake.url);
    await Promise.all([relay.connect(), fake.peer()]);
    assert.throws(() => relay.send('t', 'e', payload), { code: 'invalid_payload' });
    await assert.rejects(relay.push('t', 'e', payload), { code: 'invalid_payload' });
    const events = start(t, EventClient, fake.url);
    await Promise.all([events.connect(), fake.peer()]);
    assert.throws(() => events.emit('e', payload), { code: 'invalid_payload' });
    await assert.rejects(events.request('e', payload), { code: 'invalid_payload' });
    assert.ok(relay.isOpen && events.isOpen);
  });
}

test('a payload is what it was when it was published', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url);
  const payload = { n: 1 };
  durable.publish(T, payload).catch(() => {});
  payload.n = 2;
  durable.connect();
  assert.deepEqual((await (await fake.peer()).next()).payload, { n: 1 });
});

// K3
test('a refusal that nobody awaits is told as an error', async (t) => {
  const fake = await Fake.start(t);
  const [durable, relay, events] = [DurableClient, RelayClient, EventClient].map((Kind) => start(t, Kind, fake.url));
  const errors = [];
  for (const one of [durable, relay, events]) {
    one.on('error', ({ code }) => errors.push(code));
    await one.connect();
  }
  const [one, two, three] = [await fake.peer(), await fake.peer(), await fake.peer()];
  durable.publish(T, 1);
  durable.subscribe({ topic: T, subName: 'A' });
  durable.publish(T, 1n);
  relay.subscribe('a');
  events.request('shout');
  const [publish, subscribe] = [await one.next(), await one.next()];
  one.say({ type: 'error', message: 'full', code: 'topic_full', ref: publish.ref });
  one.say({ type: 'error', message: 'no', code: 'unknown_topic', ref: subscribe.ref });
  two.say({ type: 'error', message: 'no', code: 'join_rejected', topic: 'a' });
  three.say({ event: 'shout', data: { error: 'no', code: 'forbidden' }, id: (await three.next()).id });
  await pause(80);
  assert.deepEqual(errors.sort(), ['forbidden', 'invalid_payload', 'join_rejected', 'topic_full', 'unknown_topic']);
  // Who awaits hears it there, and only there.
  const heard = assert.rejects(durable.publish(T, 2), { code: 'topic_full' });
  one.say({ type: 'error', message: 'full', code: 'topic_full', ref: (await one.next()).ref });
  await heard;
  await pause(20);
  assert.equal(errors.length, 5);
});

test('a refusal that nobody awaits, and no listener hears, is uncaught', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url);
  await durable.connect();
  const peer = await fake.peer();
  const before = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection');
  t.after(() => before.forEach((listener) => process.on('unhandledRejection', listener)));
  const uncaught = within('unhandledRejection', (resolve) => process.once('unhandledRejection', resolve));
  durable.publish(T, 1);
  peer.say({ type: 'error', message: 'full', code: 'topic_full', ref: (await peer.next()).ref });
  assert.equal((await uncaught).code, 'topic_full');
});

test('a source of tokens that fails, or is silent, is tried so often as a connection', async (t) => {
  for (const token of [() => { throw new Error('none'); }, async () => { throw new Error('none'); },
    () => new Promise(() => {}), () => 'two\nlines', () => 7]) {
    let asked = 0;
    const counted = (reason) => { asked += 1; return token(reason); };
    const fake = await Fake.start(t);
    const relay = start(t, RelayClient, fake.url, { token: counted, attemptsMax: 2, handshakeMsMax: 30 });
    await assert.rejects(relay.connect(), { name: 'TidegateError' });
    assert.equal(relay.state, 'closed');
    assert.equal(asked, 3);
  }
  // What cannot get better is not tried again.
  const relay = start(t, RelayClient, 'ws://127.0.0.1:9', { token: 'two\nlines' });
  await assert.rejects(relay.connect(), { code: 'token' });
});

/** A server that takes connections and says nothing. */
async function silent(t) {
  const server = createServer(() => {});
  const sockets = new Set();
  server.on('connection', (socket) => sockets.add(socket));
  server.on('upgrade', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => { for (const socket of sockets) socket.destroy(); server.close(); });
  return `127.0.0.1:${server.address().port}`;
}

test('a handshake that is never answered is a failed attempt', async (t) => {
  const relay = start(t, RelayClient, `ws://${await silent(t)}`, { handshakeMsMax: 40, attemptsMax: 1 });
  await assert.rejects(relay.connect(), { closeCode: 1006, message: /handshakeMsMax/ });
  const patient = start(t, RelayClient, `ws://${await silent(t)}`, { connectMsMax: 60 });
  await assert.rejects(patient.connect(), { code: 'timeout', message: /60 ms \(connectMsMax\)/, limit: 60 });
  assert.notEqual(patient.state, 'closed');
  const signal = AbortSignal.abort(new Error('enough'));
  await assert.rejects(patient.connect({ signal }), /enough/);
});

/** Every call that gives a promise, of clients that are open to a server which never answers. */
async function calls(t, options) {
  const fake = await Fake.start(t);
  const [durable, relay, events] = [DurableClient, RelayClient, EventClient].map((Kind) => start(t, Kind, fake.url, options));
  for (const one of [durable, relay, events]) await one.connect();
  const rest = new Rest(`http://${await silent(t)}`, options);
  return {
    publish: (limits) => durable.publish(T, 1, limits),
    'publish with a key': (limits) => durable.publish(T, 1, { idempotencyKey: 'k', ...limits }),
    subscribe: (limits) => durable.subscribe({ topic: `t${Math.random()}`, subName: 'A', ...limits }),
    'relay subscribe': (limits) => relay.subscribe(`t${Math.random()}`, undefined, limits),
    request: (limits) => events.request('e', null, limits),
    'ping of relay': (limits) => relay.ping(limits),
    'ping of durable': (limits) => durable.ping(limits),
    'ping of events': (limits) => events.ping(limits),
    rest: (limits) => rest.request('GET', '/v1/topics', undefined, limits),
    presence: (limits) => rest.presence('t', limits),
    messages: (limits) => rest.messages('t', limits),
    topics: (limits) => rest.topics(limits),
  };
}

// K3
test('what the server never answers fails in time, and says which limit it was', async (t) => {
  for (const [name, call] of Object.entries(await calls(t, { requestMsMax: 40 }))) {
    await assert.rejects(call(), { code: 'timeout', message: /within 40 ms \(requestMsMax\)/, limit: 40 }, name);
  }
});

test('each call may have a time-out of its own', async (t) => {
  for (const [name, call] of Object.entries(await calls(t, {}))) {
    await assert.rejects(call({ timeoutMs: 30 }), { code: 'timeout', message: /within 30 ms/ }, name);
  }
});

test('each call can be aborted, before and later', async (t) => {
  for (const [name, call] of Object.entries(await calls(t, {}))) {
    const stop = new AbortController();
    const pending = call({ signal: stop.signal });
    setTimeout(() => stop.abort(), 10);
    await assert.rejects(pending, { name: 'AbortError' }, name);
    await assert.rejects(call({ signal: stop.signal }), { name: 'AbortError' }, name);
  }
});

test('what waits for a connection fails in time too', async (t) => {
  const durable = start(t, DurableClient, 'ws://127.0.0.1:9/ws', { offlineMsMax: 40 });
  const relay = start(t, RelayClient, 'ws://127.0.0.1:9/ws', { offlineMsMax: 40 });
  const late = { code: 'timeout', message: /offlineMsMax/ };
  const waiting = [durable.publish(T, 1), durable.subscribe({ topic: T, subName: 'A' }), relay.subscribe('t')];
  for (const one of waiting) await assert.rejects(one, late);
  await assert.rejects(durable.publish(T, 1), { wasSent: false, key: 'offlineMsMax' });
});

test('a subscription that was given up is left', async (t) => {
  const fake = await Fake.start(t);
  const relay = start(t, RelayClient, fake.url);
  await relay.connect();
  const peer = await fake.peer();
  await assert.rejects(relay.subscribe('a', undefined, { timeoutMs: 20 }), { code: 'timeout' });
  assert.deepEqual((await all(peer)).map(({ type }) => type), ['subscribe', 'unsubscribe']);
  const again = relay.subscribe('a');
  // The first answer is that to the first question.
  peer.say({ type: 'subscribed', topic: 'a' });
  peer.say({ type: 'unsubscribed', topic: 'a' });
  peer.say({ type: 'error', message: 'no', code: 'join_rejected', topic: 'a' });
  await assert.rejects(again, { code: 'join_rejected' });
});

// K3
test('an event connection that is silent is asked, then given up', async (t) => {
  const fake = await Fake.start(t);
  const events = start(t, EventClient, fake.url, { pingIntervalMs: 30, pongMsMax: 200 });
  events.connect();
  const peer = await fake.peer();
  const heard = [];
  events.onEvent('*', (event) => heard.push(event));
  const ask = await peer.next();
  assert.deepEqual(ask, { event: '$ping', data: null, id: '$ping' });
  peer.say({ ...ask, data: { error: 'unknown event `$ping`' } });
  assert.equal((await peer.next()).event, '$ping');
  await fake.peer();
  assert.deepEqual(heard, []);
});

test('the ping of the client does not answer that of the user', async (t) => {
  const fake = await Fake.start(t);
  const relay = start(t, RelayClient, fake.url, { pingIntervalMs: 30, pongMsMax: 5_000 });
  await relay.connect();
  const peer = await fake.peer();
  await peer.next();
  let isAnswered = false;
  const mine = relay.ping().then(() => { isAnswered = true; });
  await peer.next();
  peer.say({ type: 'pong' });
  await pause(20);
  assert.equal(isAnswered, false);
  peer.say({ type: 'pong' });
  await mine;
});

// K3
test('whatever code and reason it is closed with, the socket is closed', async (t) => {
  const umlauts = '\u00fc'.repeat(100);
  const given = [[1001, 'going', 1000], [1005, '', 1000], [4000, 'x'.repeat(500), 4000], [4000, umlauts, 4000],
    [99999, '', 1000], [undefined, undefined, 1000], ['text', 7, 1000], [3000, null, 3000]];
  for (const [code, reason, expected] of given) {
    const fake = await Fake.start(t);
    const relay = start(t, RelayClient, fake.url);
    await relay.connect();
    const { socket } = await fake.peer();
    const closed = within(`close after ${code}`, (resolve) => socket.on('close', (...told) => resolve(told)));
    relay.close(code, reason);
    const [told, text] = await closed;
    assert.equal(told, expected);
    assert.ok(text.length <= 123 && !`${text}`.includes('\ufffd'));
  }
});

test('one that is closed while it connects connects no longer', async (t) => {
  const fake = await Fake.start(t);
  const relay = start(t, RelayClient, fake.url);
  const pending = relay.connect();
  await pause(1);
  relay.close(1001);
  await assert.rejects(pending, { code: 'closed' });
  await pause(60);
  assert.equal(fake.server.clients.size, 0);
});

// K3
test('REST keeps the path that the server is behind', async (t) => {
  const asked = [];
  const fetch = async (url) => { asked.push(url); return new Response('{}', { headers: { 'content-type': 'application/json' } }); };
  for (const base of ['https://h/prefix', 'https://h/prefix/', 'https://h:1/a/b//', 'http://h', 'wss://h/prefix/ws']) {
    await new Rest(base, { fetch }).topics();
  }
  const relay = start(t, RelayClient, 'wss://h/prefix/ws', { restUrl: 'https://h/prefix', fetch });
  await relay.presence('t');
  assert.deepEqual(asked, ['https://h/prefix/v1/topics', 'https://h/prefix/v1/topics', 'https://h:1/a/b/v1/topics',
    'http://h/v1/topics', 'https://h/v1/topics', 'https://h/prefix/v1/relay/presence?topic=t']);
});

test('REST asks once for another token, and tells when to come again', async () => {
  const bearers = [];
  const fetch = async (url, { headers }) => {
    bearers.push(headers.Authorization);
    return bearers.length === 1 ? new Response('', { status: 401 })
      : new Response('{"title":"slow down"}', { status: 429, headers: { 'content-type': 'application/problem+json', 'retry-after': '7' } });
  };
  const rest = new Rest('http://h', { fetch, token: ({ renew }) => (renew ? 'new' : 'old') });
  await assert.rejects(rest.topics(), { code: 'http', status: 429, retryAfterS: 7, message: 'slow down' });
  assert.deepEqual(bearers, ['Bearer old', 'Bearer new']);
});

// N2
test('however often a token is said to end, it is not renewed sooner than 5 s after the last time', async (t) => {
  const fake = await Fake.start(t);
  let renewed = 0;
  const token = ({ renew }) => { if (renew) renewed += 1; return 'x'; };
  const relay = start(t, RelayClient, fake.url, { token });
  await relay.connect();
  const peer = await fake.peer();
  const began = performance.now();
  const times = [];
  while (times.length < 2) {
    peer.say({ type: 'token_expiring', seconds: 60 });
    peer.say({ type: 'token_expiring', seconds: 60 });
    while (!peer.frames.length) await pause(20);
    assert.equal((await peer.next()).type, 'auth');
    times.push(performance.now() - began);
  }
  assert.ok(times[0] < 2_000 && 4_900 <= times[1] - times[0], `${times}`);
  assert.equal(renewed, 2);
});

test('many publishes wait for a connection, and go out in order, so many at once as are allowed', async (t) => {
  const count = 10_000;
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url, { inFlightMax: 100 });
  const done = Array.from({ length: count }, (_, n) => durable.publish(T, n));
  let seq = 0;
  let waiting = 0;
  let most = 0;
  const payloads = [];
  fake.serves((peer) => peer.hears((frame) => {
    payloads.push(frame.payload);
    waiting += 1;
    most = Math.max(most, waiting);
    setTimeout(() => {
      waiting -= 1;
      seq += 1;
      peer.say({ type: 'pub_ack', topic: T, seq, ref: frame.ref });
    }, 1);
  }));
  durable.connect();
  assert.equal((await Promise.all(done)).length, count);
  assert.deepEqual(payloads, Array.from({ length: count }, (_, n) => n));
  assert.ok(most <= 100, `${most}`);
});

test('the one that is too large is refused, and what has a key goes out again', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url);
  await durable.connect();
  let peer = await fake.peer();
  const small = durable.publish(T, 1, { idempotencyKey: 'small' });
  const large = durable.publish(T, 'x'.repeat(1_000), { idempotencyKey: 'large' });
  await Promise.all([peer.next(), peer.next()]);
  peer.socket.close(1009, 'too large');
  await assert.rejects(large, { code: 'too_large' });
  peer = await fake.peer();
  const again = await peer.next();
  assert.equal(again.idempotency_key, 'small');
  peer.say({ type: 'pub_ack', topic: T, seq: 1, ref: again.ref });
  await small;
});

test('a topic that is subscribed to by name and by id is refused the second time', async (t) => {
  const fake = await Fake.start(t);
  const durable = start(t, DurableClient, fake.url);
  await durable.connect();
  const peer = await fake.peer();
  const agree = (ask) => peer.say({ type: 'subscribed', topic: T, sub_name: ask.sub_name, subscription_id: 's', cursor: 0, epoch: 1, ref: ask.ref });
  const first = durable.subscribe({ topic: T, subName: 'A' });
  agree(await peer.next());
  await first;
  await assert.rejects(durable.subscribe({ topic: T, subName: 'B' }), { code: 'already_subscribed' });
  const named = durable.subscribe({ topic: 'orders', subName: 'B' });
  agree(await peer.next());
  await assert.rejects(named, { code: 'already_subscribed' });
  assert.equal((await peer.next()).type, 'unsubscribe');
});

test('frames that are not objects are told and harm nothing', async (t) => {
  const fake = await Fake.start(t);
  for (const Kind of [DurableClient, RelayClient, EventClient]) {
    const one = start(t, Kind, fake.url);
    const errors = [];
    one.on('error', ({ code }) => errors.push(code));
    await one.connect();
    const peer = await fake.peer();
    for (const text of ['null', '7', '"x"', '{', '[]', '{"type":"subscribed"}', '{"type":"message"}', '{"type":"pub_ack"}']) peer.say(text);
    await pause(40);
    assert.ok(one.isOpen);
    assert.deepEqual(errors.slice(0, 4), Array(4).fill('invalid_frame'));
  }
});
