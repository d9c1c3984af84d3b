// Node's `ws`: echoes sealed and compressed in every combination, and a handshake with a limit on the
// server's window.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import WebSocket from "ws";

const [plain, sealed, chain] = process.argv.slice(2);
const ca = readFileSync(chain);
const long = JSON.stringify({ text: "the same again and again, ".repeat(400) });

function echo(url, perMessageDeflate) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { ca, perMessageDeflate });
    const sent = ["", "x", long, long.repeat(4), ...Array.from({ length: 100 }, (_, i) => i + long)];
    const heard = [];
    const timer = setTimeout(() => reject(new Error(`${url}: ${heard.length} of ${sent.length}`)), 20_000);
    socket.on("error", reject);
    socket.on("open", () => {
      const agreed = socket.extensions.includes("permessage-deflate");
      assert.equal(agreed, perMessageDeflate !== false, socket.extensions);
      for (const text of sent) socket.send(text);
    });
    socket.on("message", (data) => {
      heard.push(data.toString());
      if (heard.length === sent.length) socket.close(1000);
    });
    socket.on("close", (code) => {
      clearTimeout(timer);
      assert.equal(code, 1000);
      assert.deepEqual(heard, sent);
      resolve();
    });
  });
}

for (const url of [`ws://${plain}/echo`, `wss://${sealed}/echo`]) {
  for (const deflate of [false, true, { threshold: 0 }, { serverMaxWindowBits: 9 }, { clientMaxWindowBits: 9 }]) {
    await echo(url, deflate);
  }
}
console.log("ok  ws: echo, sealed and not, with every form of an offer");
