// A crowd for the console to show: people in rooms, orders with readers that are behind, and one
// who does not read. It lives in a page of its own and in one bare socket.

import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { sign } from './sign.mjs';

const NAMES = ['ada', 'grace', 'edsger', 'barbara', 'alan', 'katherine', 'dennis', 'radia', 'ken', 'frances'];
const ROOMS = ['room:harbour', 'room:lighthouse', 'room:pier-9', 'news', 'scores:live'];

/** Everybody but the one who does not read. Ends with its page. */
export async function crowd(page, base, secret, ns) {
  await page.goto(`${base}/healthz`);
  const people = NAMES.map((sub) => ({ sub, token: sign(secret, { ns, sub }) }));
  await page.evaluate(async ({ people, rooms }) => {
    const { DurableClient, RelayClient } = await import('/client.js');
    const url = (path) => `${location.origin.replace('http', 'ws')}${path}`;
    const clients = await Promise.all(people.map(async ({ token }, index) => {
      const client = new RelayClient(url('/ws'), { token });
      await client.connect();
      const mine = rooms.filter((_, room) => (index + room) % 3);
      await Promise.all(mine.map((room) => client.subscribe(room, () => {})));
      return { client, mine };
    }));
    const words = ['tide is turning', 'lock 3 is open', 'two ships inbound', 'wind from the west', 'all clear'];
    let turn = 0;
    setInterval(() => {
      for (const { client, mine } of clients) {
        turn += 1;
        if (turn % 7 < 3 + 3 * Math.sin(turn / 900)) continue;
        const room = mine[turn % mine.length];
        client.send(room, room === 'scores:live' ? 'goal' : 'said', { n: turn, text: words[turn % words.length] });
      }
    }, 20);
    const reader = async (index) => {
      const client = new DurableClient(url('/v1/ws'), { token: people[index].token });
      await client.connect();
      return client;
    };
    const [durable, shipping, reports] = await Promise.all([reader(0), reader(1), reader(2)]);
    const topics = {};
    for (const name of ['audit', 'invoices', 'orders']) topics[name] = await durable.rest.topic(name);
    const topic = topics.orders.id;
    await durable.subscribe({ topic, subName: 'billing', fromSeq: 0 }, () => {});
    await shipping.subscribe({ topic, subName: 'shipping', fromSeq: 0, manualAck: true }, (message) => {
      setTimeout(() => message.ack(), 2_000);
    });
    const late = await reports.subscribe({ topic, subName: 'reports', fromSeq: 0, manualAck: true }, () => {});
    const place = (name, payload) => durable.publish(topics[name].id, payload).catch(() => {});
    for (let n = 1; n <= 40; n += 1) await place('orders', { order: 1_000 + n, total: n * 9.5 });
    setTimeout(() => late.ack(12), 200);
    setTimeout(() => reports.close(), 500);
    let n = 40;
    setInterval(() => {
      n += 1;
      place('orders', { order: 1_000 + n, total: Math.round(n * 950) / 100, sku: `TG-${n % 17}` });
      if (n % 4 === 0) place('audit', { who: 'ada', did: 'login' });
    }, 60);
  }, { people, rooms: ROOMS });
}

function frame(text) {
  const payload = Buffer.from(text);
  const mask = randomBytes(4);
  return Buffer.concat([Buffer.from([0x81, 0x80 | payload.length]), mask, payload.map((byte, at) => byte ^ mask[at % 4])]);
}

/** Subscribes and never reads again; the end of it is `destroy()`. */
export function sleeper(base, secret, ns, topic) {
  const { hostname, port, host } = new URL(base);
  const socket = connect({ host: hostname, port: Number(port), highWaterMark: 1 });
  const token = sign(secret, { ns, sub: 'sleeper' });
  socket.on('error', () => {});
  socket.write(`GET /ws?token=${token} HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n`
    + `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n\r\n`);
  socket.once('data', () => {
    socket.write(frame(JSON.stringify({ type: 'subscribe', topic })));
    socket.once('data', () => socket.pause());
  });
  return socket;
}
