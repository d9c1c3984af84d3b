// The relay dialect, REST beside it and the echo mount, by Node's `ws`.
// Usage: node relay.mjs ADDRESS TOKEN_ADA TOKEN_BOB TOKEN_OF_ANOTHER_TENANT

import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';
import { Client, ada, address, bob, eve, http, runChecks } from './client.mjs';

const checks = {
  //
  async 'messages reach all subscribers, the sender too, until they unsubscribe'() {
    const [a, b] = [await Client.open('/ws', ada), await Client.open('/ws', bob)];
    await a.subscribe('chat:lobby');
    await b.subscribe('chat:lobby');
    const push = '{"type":"push","topic":"chat:lobby","event":"say","payload":{"text":"hi","n":42.50}}';
    await a.say(push.replace('push', 'message'), push);
    assert.equal(await b.next(), push);
    await b.say('{"type":"unsubscribe","topic":"chat:lobby"}', '{"type":"unsubscribed","topic":"chat:lobby"}');
    await a.say(push.replace('push', 'message'), push);
    await b.silent();
    await a.close();
    await b.close();
  },

  //
  async 'who is not subscribed gets an error and stays connected'() {
    const a = await Client.open('/ws', ada);
    await a.say('{"type":"message","topic":"chat:lobby","event":"e","payload":1}',
      '{"type":"error","message":"not subscribed to chat:lobby"}');
    await a.silent();
    await a.close();
  },

  // R-05, D-09
  async 'without a token the upgrade is refused with 401'() {
    const socket = new WebSocket(`ws://${address}/ws`);
    const [, response] = await once(socket, 'unexpected-response');
    assert.equal(response.statusCode, 401);
    response.destroy();
  },

  // D-09: browsers cannot set headers
  async 'a token may come as a subprotocol'() {
    const a = await Client.open('/ws', undefined, ['bearer', ada]);
    assert.equal(a.socket.protocol, 'bearer');
    await a.subscribe('t');
    await a.close();
  },

  // R-07, C-06, C-07, D-06
  async 'REST pushes and tells who is present, within one tenant'() {
    const [a, e] = [await Client.open('/ws', ada), await Client.open('/ws', eve)];
    await a.subscribe('orders:new');
    await e.subscribe('orders:new');
    const body = { topic: 'orders:new', event: 'created', payload: { id: 1 } };
    assert.equal((await http('POST', '/v1/relay/push', ada, body)).status, 200);
    assert.deepEqual(JSON.parse(await a.next()), { type: 'push', ...body });
    await e.silent();
    const answer = await http('GET', '/v1/relay/presence?topic=orders:new', bob);
    assert.equal(answer.status, 200);
    const { count, members } = await answer.json();
    assert.deepEqual([count, members.map((member) => member.meta)], [1, [{ sub: 'ada' }]]);
    await a.close();
    await e.close();
  },

  //
  async 'the echo mount returns text and binary, and closes'() {
    const a = await Client.open('/echo');
    for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
      a.socket.send(Buffer.alloc(size, 0xa5));
      assert.deepEqual(await a.next(), Buffer.alloc(size, 0xa5));
      await a.say('ü'.repeat(size), 'ü'.repeat(size));
    }
    assert.equal(await a.close(), 1000);
  },

  // RFC 6455 section 5.5: a ping comes back with its payload
  async 'a ping of the protocol is answered with its payload'() {
    const a = await Client.open('/ws', ada);
    a.socket.ping('abc');
    const [payload] = await once(a.socket, 'pong');
    assert.equal(payload.toString(), 'abc');
    await a.close();
  },
};

await runChecks(checks);
