// The event dialect of the client against a real server: the example `notify`, which a test starts,
// ends and starts again at the same address.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { client, start, within } from './fake.mjs';
import { sign } from './sign.mjs';

const { EventClient, Rest } = client;
const { TIDEGATE_EXAMPLE: example, TIDEGATE_JWT_SECRET: secret } = process.env;
const options = { skip: example ? false : 'no example `notify`: `cargo build --example notify` makes it' };
const now = () => Math.floor(Date.now() / 1_000);
const token = (sub, claims = {}) => sign(secret, { ns: 'demo', sub, ...claims });
const reached = (one, wanted) => within(wanted, (resolve) => {
  if (one.state === wanted) resolve();
  one.on('state', (state) => state === wanted && resolve());
}, 10_000);
const heard = (one, event) => within(event, (resolve) => one.onEvent(event, resolve));

class Example {
  static async start(t) {
    const server = new Example();
    server.folder = await mkdtemp(join(tmpdir(), 'tidegate-events-'));
    t.after(() => server.end());
    await server.start('127.0.0.1:0');
    return server;
  }

  async start(listen) {
    // A token ends when it says: what the clocks may differ by is counted at its end too.
    this.process = spawn(example, ['--listen', listen, '--shards', '2', '--data', join(this.folder, 'data')],
      { cwd: this.folder, env: { ...process.env, TIDEGATE_AUTH__LEEWAY_S: '0' }, stdio: ['ignore', 'pipe', 'ignore'] });
    const [line] = await once(createInterface({ input: this.process.stdout }), 'line');
    this.address = /^tidegate listening on http:\/\/(\S+)$/.exec(line)[1];
  }

  async stop() {
    this.process.kill('SIGTERM');
    const [code] = await once(this.process, 'exit');
    assert.equal(code, 0);
  }

  async end() {
    this.process.kill('SIGKILL');
    await rm(this.folder, { recursive: true, force: true });
  }

  join(t, path, given, more = {}) {
    return start(t, EventClient, `ws://${this.address}${path}`, { token: given, ...more });
  }
}

// M-11, D-13
test('events are answered, heard by others, and fail as errors', options, async (t) => {
  const server = await Example.start(t);
  const [ada, bob] = ['ada', 'bob'].map((sub) => server.join(t, '/chat', token(sub)));
  const welcome = heard(ada, 'welcome');
  await Promise.all([ada.connect(), bob.connect()]);
  assert.equal(typeof (await welcome).conn_id, 'number');
  assert.equal(await ada.request('presence'), 2);
  const said = heard(bob, 'said');
  assert.ok(ada.emit('say', { text: 'hello' }));
  assert.deepEqual(await said, { text: 'hello' });
  await assert.rejects(ada.request('fail', { how: 'teapot' }), { code: 418, message: 'short and stout' });
  await assert.rejects(ada.request('fail', { how: 'plain' }), { message: 'plain failure' });
  await assert.rejects(ada.request('no-such-event'), { name: 'TidegateError' });
  await assert.rejects(ada.request('say', { text: 7 }), { name: 'TidegateError' });
  // None of it cost the connection.
  assert.equal(await ada.request('presence'), 2);
  const bye = heard(bob, 'bye');
  ada.close();
  await bye;
});

// D-09, L-08
test('over a restart it comes back by itself', options, async (t) => {
  const server = await Example.start(t);
  const one = server.join(t, '/chat', token('ada'));
  await one.connect();
  const closed = within('close', (resolve) => one.on('close', resolve));
  await server.stop();
  assert.equal((await closed).code, 1012);
  await assert.rejects(one.request('presence'), { code: 'disconnected' });
  assert.equal(one.emit('say', { text: 'lost' }), false);
  const welcome = heard(one, 'welcome');
  await server.start(server.address);
  await reached(one, 'open');
  await welcome;
  assert.equal(await one.request('presence'), 1);
});

// D-09
test('an expired token is replaced, or ends it where it cannot be', options, async (t) => {
  const server = await Example.start(t);
  const asked = [];
  const source = ({ renew }) => {
    asked.push(renew);
    return token('ada', { exp: now() + (renew ? 600 : 2) });
  };
  const [renewed, fixed] = [source, token('bob', { exp: now() + 2 })].map((given) => server.join(t, '/chat', given));
  await Promise.all([renewed.connect(), fixed.connect()]);
  const closed = within('close', (resolve) => renewed.on('close', resolve));
  await reached(fixed, 'closed');
  assert.deepEqual([fixed.error.code, fixed.error.closeCode], ['token_expired', 4401]);
  assert.equal((await closed).code, 4401);
  await reached(renewed, 'open');
  assert.deepEqual(asked, [false, true]);
  assert.equal(await renewed.request('presence'), 1);
});

test('closed by an admin it comes back twice and then stays away', options, async (t) => {
  const server = await Example.start(t);
  const one = server.join(t, '/chat', token('ada'), { stableMs: 60_000 });
  const root = token('root', { roles: ['admin'] });
  const ops = new Rest(one.url, { token: root });
  const codes = [];
  one.on('close', ({ code }) => {
    codes.push(code);
    // There is no connection any more, whatever is tried here.
    assert.equal(one.emit('say', { text: 'too late' }), false);
  });
  await one.connect();
  await assert.rejects(one.request('shout', { text: 'no' }), { message: 'forbidden' });
  for (let time = 1; time <= 3; time += 1) {
    await reached(one, 'open');
    const { connections: [{ id }] } = await ops.connections();
    const lost = within('close', (resolve) => one.on('close', resolve));
    await ops.disconnect(id);
    await lost;
  }
  await reached(one, 'closed');
  assert.deepEqual([one.error.code, one.error.closeCode], ['policy', 1008]);
  assert.deepEqual(codes, [1008, 1008, 1008]);
  assert.deepEqual((await ops.connections()).connections, []);
});

test('a code of the application brings it back, a refused upgrade is tried so often and no more', options, async (t) => {
  const server = await Example.start(t);
  const one = server.join(t, '/chat', token('ada'));
  await one.connect();
  const closed = within('close', (resolve) => one.on('close', resolve));
  one.emit('fail', { how: 'close' });
  assert.deepEqual(await closed, { code: 4418, reason: 'short and stout' });
  await reached(one, 'open');
  assert.equal(await one.request('presence'), 1);
  for (const [path, given] of [['/notify', token('eve', { roles: ['banned'] })], ['/chat', 'no-token'], ['/chat', undefined]]) {
    const banned = server.join(t, path, given, { attemptsMax: 2 });
    await assert.rejects(banned.connect(), { code: 'disconnected', closeCode: 1006 });
    assert.equal(banned.state, 'closed');
  }
});
