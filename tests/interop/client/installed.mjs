// A program that has installed the package and nothing else of this repository.

import { DurableClient } from 'tidegate';
import WebSocket from 'ws';

const [address, token] = process.argv.slice(2);
const durable = new DurableClient(`ws://${address}/v1/ws`, { token, WebSocket });
await durable.connect();
const { id } = await durable.rest.topic('installed');
await durable.subscribe({ topic: id, subName: 'A', fromSeq: 0 }, ({ payload, seq }) => {
  console.log(payload, seq);
  durable.close();
});
await durable.publish(id, 'hello').catch(() => {});
