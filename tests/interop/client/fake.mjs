// A server that says what a test wants it to say: one socket at a time, frames awaited in order.

import { createServer } from 'node:http';
import { once } from 'node:events';
import WebSocket, { WebSocketServer } from 'ws';

export { WebSocket };

export class Fake {
  static async start(t) {
    const fake = new Fake();
    fake.http = createServer();
    fake.server = new WebSocketServer({
      server: fake.http,
      handleProtocols: (offered) => [...offered][0],
    });
    fake.queue = [];
    fake.waiting = [];
    fake.serves((peer) => {
      const take = fake.waiting.shift();
      take ? take(peer) : fake.queue.push(peer);
    });
    fake.http.listen(0, '127.0.0.1');
    await once(fake.http, 'listening');
    fake.url = `ws://127.0.0.1:${fake.http.address().port}/mount`;
    t.after(() => {
      for (const socket of fake.server.clients) socket.terminate();
      fake.http.close();
    });
    return fake;
  }

  /** Gives each connection to `serve`, in place of what was before. */
  serves(serve) {
    this.server.removeAllListeners('connection');
    this.server.on('connection', (socket, request) => {
      serve(new Peer(socket, request.headers['sec-websocket-protocol']));
    });
  }

  peer() {
    if (this.queue.length) return Promise.resolve(this.queue.shift());
    return within('a connection', (resolve) => this.waiting.push(resolve));
  }
}

class Peer {
  constructor(socket, protocols) {
    this.socket = socket;
    this.protocols = protocols.split(',').map((name) => name.trim());
    this.frames = [];
    this.waiting = [];
    socket.on('message', (data) => {
      const frame = JSON.parse(data.toString());
      const take = this.waiting.shift();
      take ? take(frame) : this.frames.push(frame);
    });
  }

  /** Gives each frame to `hear`, in place of `next`. */
  hears(hear) {
    this.socket.removeAllListeners('message');
    this.socket.on('message', (data) => hear(JSON.parse(data.toString())));
  }

  next() {
    if (this.frames.length) return Promise.resolve(this.frames.shift());
    return within('a frame', (resolve) => this.waiting.push(resolve));
  }

  say(frame) {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  drop() {
    this.socket.terminate();
  }
}

export function within(what, begin, ms = 5000) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${what} within ${ms} ms`)), ms);
    begin((value) => { clearTimeout(timer); resolve(value); });
  });
}

// The client under test, and options that make waiting short.
export const client = await import(process.env.TIDEGATE_CLIENT);
export const quick = { WebSocket, backoffMsMin: 10, backoffMsMax: 40, stableMs: 0 };

// Clients that a test starts are closed at its end.
export function start(t, Kind, url, options = {}) {
  const one = new Kind(url, { ...quick, ...options });
  t.after(() => one.close());
  return one;
}
