// `ws` as an echo, to compare with: no compression, no TLS; prints its address as Tidegate does.

import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

const server = createServer();
const sockets = new WebSocketServer({ server, perMessageDeflate: false, maxPayload: 1 << 20 });
sockets.on('connection', (socket) => {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});
server.listen(0, '127.0.0.1', 4096, () => {
  console.log(`ws listening on http://127.0.0.1:${server.address().port}`);
});
