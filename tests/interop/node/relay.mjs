// The relay dialect, REST beside it and the echo mount, by Node's `ws`.
// Usage: node relay.mjs ADDRESS TOKEN_ADA TOKEN_BOB TOKEN_OF_ANOTHER_TENANT

import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';

const [address, ada, bob, eve] = process.argv.slice(2);

// A socket whose messages are awaited one by one.
class Client {
  constructor(path, options = {}, protocols = []) {
    this.waiting = [];
    this.messages = [];
    this.socket = new WebSocket(`ws://${address}${path}`, protocols, { perMessageDeflate: false, ...options });
    this.socket.on('message', (data, isBinary) => {
      const message = isBinary ? data : data.toString();
      const take = this.waiting.shift();
      take ? take(message) : this.messages.push(message);
    });
  }

  static async open(path, bearer, protocols) {
    const headers = bearer ? { Authorization: `Bearer ${bearer}` } : {};
    const client = new Client(path, { headers }, protocols);
    await once(client.socket, 'open');
    return client;
  }

  next() {
    if (this.messages.length) return Promise.resolve(this.messages.shift());
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no message within 5 s')), 5000);
      this.waiting.push((message) => { clearTimeout(timer); resolve(message); });
    });
  }

  async say(message, answer) {
    this.socket.send(message);
    assert.equal(await this.next(), answer);
  }

  subscribe(topic) {
    return this.say(`{"type":"subscribe","topic":"${topic}"}`, `{"type":"subscribed","topic":"${topic}"}`);
  }

  // Nothing is on its way: the answer to a ping is the next frame.
  silent() {
    return this.say('{"type":"ping"}', '{"type":"pong"}');
  }

  async close() {
    this.socket.close(1000, 'done');
    const [code] = await once(this.socket, 'close');
    return code;
  }
}

const http = (method, path, bearer, body) => fetch(`http://${address}${path}`, {
  method,
  headers: { Authorization: `Bearer ${bearer}`, 'Content-Type': 'application/json' },
  body: body && JSON.stringify(body),
});

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

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${error.stack}`);
  }
}
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
