// What is handled over connections that break at every place: against a model of the server, which
// refuses an ack beyond what it has delivered on this connection, and against the server itself.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { Fake, client, start, within } from './fake.mjs';

const T = '0190c0de-0000-7000-8000-000000000001';
const { DurableClient } = client;
const { TIDEGATE_ADDRESS: address, TIDEGATE_TOKEN: token } = process.env;

/** One topic with one subscription, as the durable dialect says. */
class Model {
  cursor = 0;
  acksAhead = 0;
  steps = 0;

  constructor(messages, dropsAt) {
    Object.assign(this, { messages, dropsAt });
  }

  serve(peer) {
    let delivered = this.cursor;
    let window = 0;
    const step = (then) => {
      this.steps += 1;
      if (this.dropsAt.has(this.steps)) peer.drop();
      else then();
    };
    const deliver = () => {
      while (window && delivered < Math.min(this.messages, this.cursor + window) && peer.socket.readyState === 1) {
        delivered += 1;
        step(() => peer.say({ type: 'message', topic: T, seq: delivered, payload: delivered }));
      }
    };
    const handle = (frame) => {
      if (frame.type === 'subscribe') {
        window = frame.max_in_flight;
        delivered = this.cursor;
        peer.say({ type: 'subscribed', topic: T, sub_name: 'A', subscription_id: 's', cursor: this.cursor,
          next_seq: this.cursor + 1, first_seq: 1, last_seq: this.messages, epoch: 7, ref: frame.ref });
      } else if (frame.type === 'unsubscribe') {
        window = 0;
        peer.say({ type: 'unsubscribed', topic: T, sub_name: 'A', ref: frame.ref });
      } else if (frame.type === 'ack' && delivered < frame.seq) {
        this.acksAhead += 1;
        peer.say({ type: 'error', message: 'ack ahead', code: 'ack_ahead', topic: T, sub_name: 'A' });
      } else if (frame.type === 'ack') {
        this.cursor = Math.max(this.cursor, frame.seq);
      }
      // What was published before has to be read first.
      if (frame.type === 'subscribe') setTimeout(deliver, 5);
      else deliver();
    };
    peer.hears((frame) => step(() => handle(frame)));
  }
}

/** Handles all messages while the connection breaks at these steps; returns the model. */
async function throughDrops(t, dropsAt, { fails = 0, ...more } = {}) {
  const messages = 12;
  const fake = await Fake.start(t);
  const model = new Model(messages, dropsAt);
  fake.serves((peer) => model.serve(peer));
  const durable = start(t, DurableClient, fake.url, { backoffMsMin: 1, backoffMsMax: 3 });
  const seen = [];
  const ack = { ackEvery: 3, ackDelayMs: 2, maxInFlight: 4, ...more };
  let calls = 0;
  durable.connect();
  durable.subscribe({ topic: T, subName: 'A', fromSeq: 0, ...ack }, async ({ seq, ack: done }) => {
    calls += 1;
    if (calls % 2) await new Promise((resolve) => setTimeout(resolve, 1));
    if (fails && calls % fails === 0) throw new Error('again');
    seen.push(seq);
    done();
  });
  const deadline = Date.now() + 5_000;
  while (model.cursor < messages && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 2));
  const told = `drops at ${[...dropsAt]}: cursor ${model.cursor}, handled ${seen}`;
  assert.equal(model.cursor, messages, `stalled, ${told}`);
  assert.equal(model.acksAhead, 0, `acked what was not delivered, ${told}`);
  assert.deepEqual([...new Set(seen)], Array.from({ length: messages }, (_, nth) => nth + 1), told);
  durable.close();
  return model;
}

// N1
test('it goes on wherever the connection breaks', async (t) => {
  const { steps } = await throughDrops(t, new Set());
  assert.ok(12 < steps);
  for (let at = 1; at <= steps + 3; at += 1) await throughDrops(t, new Set([at]));
  for (let at = 2; at <= steps; at += 3) await throughDrops(t, new Set([at, at + 2, at + 7, at + 8]));
});

// N1
test('so it does with handlers that fail, acks by hand, and one message at a time', async (t) => {
  for (let at = 1; at <= 30; at += 4) {
    await throughDrops(t, new Set([at, at + 5]), { fails: 4 });
    await throughDrops(t, new Set([at, at + 5]), { manualAck: true });
    await throughDrops(t, new Set([at, at + 5]), { maxInFlight: 1, ackEvery: 1 });
    await throughDrops(t, new Set([at, at + 5]), { ackEvery: 100, ackDelayMs: 30 });
  }
});

/** Carries bytes to the server, and lets the connection break after a number of them. */
class Breaking {
  static async start(t) {
    const proxy = new Breaking();
    proxy.sockets = new Set();
    proxy.bytes = Infinity;
    proxy.server = createServer((near) => proxy.carry(near));
    proxy.server.listen(0, '127.0.0.1');
    await once(proxy.server, 'listening');
    proxy.address = `127.0.0.1:${proxy.server.address().port}`;
    t.after(() => {
      for (const socket of proxy.sockets) socket.destroy();
      proxy.server.close();
    });
    return proxy;
  }

  carry(near) {
    const [host, port] = address.split(':');
    const far = connect(Number(port), host);
    let left = this.bytes;
    const end = () => { near.destroy(); far.destroy(); };
    for (const [from, to] of [[near, far], [far, near]]) {
      this.sockets.add(from);
      from.on('error', end);
      from.on('close', end);
      from.on('data', (data) => {
        to.write(data.subarray(0, Math.max(0, left)));
        left -= data.length;
        if (left <= 0) setImmediate(end);
      });
    }
  }
}

// N1
test('100 times over a connection that breaks somewhere, no message is left out and none is stuck', async (t) => {
  const proxy = await Breaking.start(t);
  const rest = new client.Rest(`http://${address}`, { token });
  const messages = 40;
  for (let nth = 0; nth < 100; nth += 1) {
    const { id } = await rest.topic(`resume-${nth}`);
    const all = Array.from({ length: messages }, (_, seq) => ({ payload: seq + 1 }));
    await rest.request('POST', `/v1/topics/${id}/messages`, all);
    // From the handshake on, a little later each time; two tries in a row break at the same place.
    proxy.bytes = 450 + 83 * nth;
    let left = 2;
    const durable = start(t, DurableClient, `ws://${proxy.address}/v1/ws`, {
      token, backoffMsMin: 1, backoffMsMax: 5, requestMsMax: 20_000 });
    durable.on('close', () => { if ((left -= 1) <= 0) proxy.bytes = Infinity; });
    const seen = new Set();
    const options = { topic: id, subName: 'A', fromSeq: 0, ackEvery: 4, ackDelayMs: 3, maxInFlight: 8 };
    const errors = [];
    durable.on('error', ({ code }) => errors.push(code));
    await within(`message ${messages} in try ${nth}, after ${seen.size}`, (resolve) => {
      durable.subscribe(options, ({ seq }) => {
        seen.add(seq);
        if (seq === messages) resolve();
      }).catch((error) => errors.push(error.message));
      durable.connect();
    }, 10_000);
    assert.equal(seen.size, messages);
    assert.deepEqual(errors, [], `try ${nth}`);
    durable.close();
  }
});
