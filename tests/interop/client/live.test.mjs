// The durable dialect of the client against the server.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { client, start, within } from './fake.mjs';

const { DurableClient } = client;
const { TIDEGATE_ADDRESS: address, TIDEGATE_TOKEN: token } = process.env;
const url = `ws://${address}/v1/ws`;

// B-07, B-09 to B-12, B-16, D-27
test('publish, replay, ack, and resume at the cursor on another connection', async (t) => {
  const durable = start(t, DurableClient, url, { token });
  await durable.connect();
  const { id } = await durable.rest.topic('client-live');
  const acks = await Promise.all([1, 2, 3].map((n) => durable.publish(id, { n })));
  assert.deepEqual(acks.map(({ seq }) => seq), [1, 2, 3]);
  const again = await durable.publish(id, 4, { idempotencyKey: 'k' });
  assert.deepEqual(await durable.publish(id, 4, { idempotencyKey: 'k' }), { ...again, duplicate: true });
  const read = (from, until) => within(`message ${until}`, (resolve) => {
    const seen = [];
    from.subscribe({ topic: id, subName: 'A', fromSeq: 0 }, ({ seq, payload }) => {
      seen.push([seq, payload]);
      if (seq === until) resolve(seen);
    });
  });
  assert.deepEqual(await read(durable, 4), [[1, { n: 1 }], [2, { n: 2 }], [3, { n: 3 }], [4, 4]]);
  durable.close();
  const other = start(t, DurableClient, url, { token });
  await other.connect();
  const resumed = read(other, 5);
  await other.publish(id, 5);
  // The close may come while the last handler has not ended yet, so only what is before it is acked.
  const seen = (await resumed).map(([seq]) => seq);
  assert.ok([[5], [4, 5]].some((expected) => `${expected}` === `${seen}`), `${seen}`);
});
