// What the scripts share: a socket of Node's `ws` whose messages are awaited one by one, requests
// over HTTP, and how checks are counted.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';

export const [address, ada, bob, eve] = process.argv.slice(2);

// A socket whose messages are awaited one by one.
export class Client {
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

export const http = (method, path, bearer, body) => fetch(`http://${address}${path}`, {
  method,
  headers: { Authorization: `Bearer ${bearer}`, 'Content-Type': 'application/json' },
  body: body && JSON.stringify(body),
});

// Runs the checks, each on its own; ends the script.
export const runChecks = async (checks) => {
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
};
