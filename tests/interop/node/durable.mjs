// Durable topics by Node's `ws`: frames byte for byte, REST beside them, and what is there for the
// next connection.
// Usage: node durable.mjs ADDRESS TOKEN_ADA TOKEN_BOB TOKEN_OF_ANOTHER_TENANT

import assert from 'node:assert/strict';
import { Client, ada, bob, eve, http, runChecks } from './client.mjs';

const open = (bearer) => Client.open('/v1/ws', bearer);

const topic = async (name) => (await (await http('POST', '/v1/topics', ada, { name })).json()).id;

const ask = async (client, request) => {
  client.socket.send(JSON.stringify(request));
  return JSON.parse(await client.next());
};

const message = async (client, id, payload, seq) => assert.equal(
  await client.next(), `{"type":"message","topic":"${id}","seq":${seq},"payload":${payload}}`);

const checks = {
  // B-07, B-09 to B-12, B-16, D-27, D-41
  async 'what is not acked comes again on the next connection'() {
    const id = await topic('resume');
    assert.equal(await topic('resume'), id);
    const payloads = ['42.50', '{"a" : 1}', '123456789012345678901234567890'];
    const a = await open(ada);
    for (const [index, payload] of payloads.entries()) {
      await a.say(`{"type":"publish","topic":"${id}","payload":${payload},"ref":"r${index}"}`,
        `{"type":"pub_ack","topic":"${id}","seq":${index + 1},"ref":"r${index}"}`);
    }
    const opened = await ask(a, { type: 'subscribe', topic: id, sub_name: 'A', from_seq: 0 });
    assert.deepEqual([opened.type, opened.next_seq, opened.resumed], ['subscribed', 1, false]);
    for (const [index, payload] of payloads.entries()) await message(a, id, payload, index + 1);
    await a.say(`{"type":"ack","topic":"${id}","sub_name":"A","seq":1,"ref":7}`,
      `{"type":"acked","topic":"${id}","sub_name":"A","seq":1,"ref":7}`);
    a.socket.terminate();
    const b = await open(bob);
    const resumed = await ask(b, { type: 'subscribe', topic: id, sub_name: 'A', from_seq: 0 });
    assert.deepEqual([resumed.cursor, resumed.next_seq, resumed.resumed], [1, 2, true]);
    await message(b, id, payloads[1], 2);
    await message(b, id, payloads[2], 3);
    await b.close();
  },

  // D-27: many at once, acked in order
  async 'acks come in the order of the publishes'() {
    const id = await topic('order');
    const a = await open(ada);
    for (let n = 1; n <= 1000; n += 1) {
      a.socket.send(`{"type":"publish","topic":"${id}","payload":${n},"ref":${n}}`);
    }
    for (let n = 1; n <= 1000; n += 1) {
      assert.equal(await a.next(), `{"type":"pub_ack","topic":"${id}","seq":${n},"ref":${n}}`);
    }
    await a.close();
  },

  // B-13, D-37
  async 'a deleted subscription gets nothing more'() {
    const id = await topic('deleted');
    const [a, b] = [await open(ada), await open(bob)];
    const { subscription_id } = await ask(a, { type: 'subscribe', topic: id, sub_name: 'A' });
    const removed = await http('DELETE', `/v1/subscriptions/${subscription_id}`, bob);
    assert.equal(removed.status, 204);
    assert.equal(JSON.parse(await a.next()).reason, 'deleted');
    await b.say(`{"type":"publish","topic":"${id}","payload":1}`,
      `{"type":"pub_ack","topic":"${id}","seq":1}`);
    await a.silent();
    await a.close();
    await b.close();
  },

  // B-05, B-19
  async 'another tenant sees nothing'() {
    const id = await topic('own');
    const e = await open(eve);
    const answer = await ask(e, { type: 'subscribe', topic: id, sub_name: 'A' });
    assert.deepEqual([answer.type, answer.code], ['error', 'unknown_topic']);
    assert.equal((await http('GET', `/v1/topics/${id}/messages`, eve)).status, 404);
    await e.close();
  },
};

await runChecks(checks);
