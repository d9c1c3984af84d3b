// The real socket.io-client against the example `socketio`, over polling, over WebSocket and over the
// change from one to the other, each as its own server's users would write it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { io } from 'socket.io-client';

const address = process.argv.at(-1);
const WAYS = { polling: ['polling'], websocket: ['websocket'], both: ['polling', 'websocket'] };

function open(t, transports, nsp = '', options = {}) {
  const socket = io(`http://${address}${nsp}`, { transports, forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 50, ...options });
  t.after(() => socket.close());
  return socket;
}

function heard(socket, event, ms = 5000) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event} within ${ms} ms`)), ms);
    socket.once(event, (...args) => { clearTimeout(timer); resolve(args); });
  });
}

async function joined(t, transports, nsp, options) {
  const socket = open(t, transports, nsp, options);
  await heard(socket, 'connect');
  return socket;
}

const ask = (socket, ...args) => socket.timeout(5000).emitWithAck(...args);

for (const [way, transports] of Object.entries(WAYS)) {
  test(`${way}: a connect shows its payload and has a name`, async (t) => {
    const socket = open(t, transports, '', { auth: { who: 'ada' } });
    const auth = heard(socket, 'auth');
    await heard(socket, 'connect');
    assert.deepEqual(await auth, [{ who: 'ada' }]);
    assert.equal(typeof socket.id, 'string');
    assert.ok(!socket.recovered);
  });

  test(`${way}: arguments come back, bytes too`, async (t) => {
    const socket = await joined(t, transports);
    const bytes = Buffer.from([0, 1, 2, 250, 255]);
    const args = [1, 'two', { three: [true, null, 1.5] }, bytes, { deep: [{ bytes }] }];
    const back = heard(socket, 'message-back');
    socket.emit('message', ...args);
    assert.deepEqual(await back, args);
    const acked = await new Promise((resolve) => socket.emit('message-with-ack', ...args, (...all) => resolve(all)));
    assert.deepEqual(acked, args);
    const none = await new Promise((resolve) => socket.emit('nothing', (...all) => resolve(all)));
    assert.deepEqual(none, []);
  });

  test(`${way}: rooms, several rooms, one client by its name, all but a room`, async (t) => {
    const [ada, bob, eve] = await Promise.all([1, 2, 3].map(() => joined(t, transports)));
    const room = `r${Math.random()}`;
    await Promise.all([ask(ada, 'join', room), ask(bob, 'join', room)].map((it) => it.catch(() => null)));
    const said = heard(bob, 'said');
    ada.emit('say', room, 'hello');
    assert.deepEqual(await said, [room, 'hello']);
    const shouted = [ada, bob].map((one) => heard(one, 'shouted'));
    eve.emit('shout', [room, `${room}-other`], 'all');
    for (const one of shouted) assert.deepEqual(await one, ['all']);
    const whispered = heard(eve, 'whispered');
    ada.emit('whisper', eve.id, 'psst');
    assert.deepEqual(await whispered, ['psst']);
    const but = heard(eve, 'not-for-room');
    let stray = 0;
    bob.on('not-for-room', () => { stray += 1; });
    ada.emit('but', room, 'others');
    assert.deepEqual(await but, ['others']);
    assert.equal(stray, 0);
  });

  test(`${way}: the server asks one client and a room`, async (t) => {
    const [ada, bob] = await Promise.all([1, 2].map(() => joined(t, transports)));
    ada.on('question', (how, answer) => how === 'silent' || answer('yes', { how }));
    assert.deepEqual(await ask(ada, 'ask', 'loud'), ['yes', { how: 'loud' }]);
    assert.equal(await ask(ada, 'ask', 'silent'), 'timeout');
    const room = `v${Math.random()}`;
    ada.on('vote', (answer) => answer('a'));
    bob.on('vote', (answer) => answer('b'));
    await Promise.all([ask(ada, 'join', room), ask(bob, 'join', room)].map((it) => it.catch(() => null)));
    const [missing, votes] = await new Promise((resolve) => ada.emit('poll-room', room, (...all) => resolve(all)));
    assert.deepEqual([missing, votes.sort()], [false, ['a', 'b']]);
  });

  test(`${way}: namespaces are apart, guarded or unknown`, async (t) => {
    const custom = await joined(t, transports, '/custom');
    assert.equal(await ask(custom, 'message-with-ack', 'here'), 'here');
    const good = await joined(t, transports, '/guarded', { auth: { token: 'good' } });
    assert.equal(await ask(good, 'who'), 'guarded');
    const [bad] = await heard(open(t, transports, '/guarded', { auth: { token: 'bad' } }), 'connect_error');
    assert.deepEqual([bad.message, bad.data], ['forbidden', { code: 403 }]);
    const [unknown] = await heard(open(t, transports, '/nowhere'), 'connect_error');
    assert.equal(unknown.message, 'Invalid namespace');
  });

  test(`${way}: ends have their reasons, and a lost transport comes back`, async (t) => {
    const kicked = await joined(t, transports);
    const [reason] = await (kicked.emit('kick'), heard(kicked, 'disconnect'));
    assert.equal(reason, 'io server disconnect');
    for (const how of ['cut', 'drop']) {
      const one = await joined(t, transports);
      const lost = heard(one, 'disconnect');
      one.emit(how);
      const [why] = await lost;
      assert.ok(['transport close', 'transport error', 'ping timeout'].includes(why), why);
      await heard(one, 'connect');
      assert.equal(await ask(one, 'message-with-ack', 'again'), 'again');
    }
  });
}

test('a session that began with polling goes on over WebSocket', async (t) => {
  const socket = open(t, WAYS.both);
  await heard(socket, 'connect');
  const id = socket.id;
  if (socket.io.engine.transport.name !== 'websocket') await heard(socket.io.engine, 'upgrade');
  assert.equal(socket.io.engine.transport.name, 'websocket');
  assert.equal(await ask(socket, 'message-with-ack', 'over'), 'over');
  assert.equal(socket.id, id);
});

test('two namespaces share a transport', async (t) => {
  const main = await joined(t, WAYS.websocket);
  const custom = main.io.socket('/custom');
  t.after(() => custom.close());
  await heard(custom, 'connect');
  assert.equal(await ask(custom, 'message-with-ack', 1), 1);
  main.disconnect();
  assert.equal(await ask(custom, 'message-with-ack', 2), 2);
});

test('a hundred events keep their order, and each ack its number', async (t) => {
  const socket = await joined(t, WAYS.both);
  const back = [];
  socket.on('message-back', (number) => back.push(number));
  const acks = Array.from({ length: 100 }, (_, number) => {
    socket.emit('message', number);
    return ask(socket, 'message-with-ack', number);
  });
  assert.deepEqual(await Promise.all(acks), Array.from({ length: 100 }, (_, number) => number));
  assert.deepEqual(back, Array.from({ length: 100 }, (_, number) => number));
});
