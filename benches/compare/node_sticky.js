// The usual sticky primary in Node, for the comparison: the MD5 of the
// client's address picks the worker, and the paused socket is sent to it.
// The workers answer what the other rows' workers answer, without packages.
'use strict';

const cluster = require('node:cluster');
const { createHash } = require('node:crypto');
const http = require('node:http');
const net = require('node:net');

const MESSAGE = 'sticky:connection';
const WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

if (cluster.isPrimary) {
  runPrimary(Number(process.env.WORKERS), Number(process.env.PORT));
} else {
  runWorker();
}

function runPrimary(count, port) {
  const workers = Array.from({ length: count }, () => cluster.fork());
  let ready = 0;
  cluster.on('exit', () => process.exit(1));
  cluster.on('message', () => {
    ready += 1;
    if (ready === count) listen(workers, port);
  });
}

function listen(workers, port) {
  const front = net.createServer({ pauseOnConnect: true }, (socket) => {
    const digest = createHash('md5').update(socket.remoteAddress || '').digest();
    workers[digest.readUInt32LE(0) % workers.length].send(MESSAGE, socket);
  });
  front.listen({ port, host: '127.0.0.1', backlog: 1024 });
}

function runWorker() {
  const server = http.createServer((request, response) => {
    response.writeHead(200, {
      'Content-Type': 'text/plain; charset=utf-8',
      'X-Worker-ID': process.pid,
    });
    response.end(`Hello from worker ${process.pid}\n`);
  });
  server.on('upgrade', (request, socket) => echo(request, socket));
  process.on('message', (message, socket) => {
    // The socket is gone if the client went away while it was on its way.
    if (message !== MESSAGE || !socket) return;
    server.emit('connection', socket);
    socket.resume();
  });
  process.send('ready');
}

function echo(request, socket) {
  const accept = createHash('sha1')
    .update(request.headers['sec-websocket-key'] + WEBSOCKET_GUID)
    .digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n'
    + `Connection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  let pending = Buffer.alloc(0);
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    pending = answerFrames(socket, pending);
  });
}

// Answers every whole frame and returns what is left. Only short text frames
// (under 126 bytes, masked, not fragmented), which is all that the load sends.
function answerFrames(socket, pending) {
  while (pending.length >= 6) {
    const length = pending[1] & 0x7f;
    if (pending[0] !== 0x81 || length > 125) {
      socket.destroy();
      return Buffer.alloc(0);
    }
    if (pending.length < 6 + length) break;
    const frame = Buffer.allocUnsafe(2 + length);
    frame[0] = 0x81;
    frame[1] = length;
    for (let at = 0; at < length; at += 1) {
      frame[2 + at] = pending[6 + at] ^ pending[2 + (at & 3)];
    }
    socket.write(frame);
    pending = pending.subarray(6 + length);
  }
  return pending;
}
