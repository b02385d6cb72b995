// Connections arrive by the message `sticky:balance`, as with the package sticky-session; the worker never listens.
'use strict';

const cluster = require('node:cluster');
const { createHash } = require('node:crypto');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const { answer } = require('../apps/about.cjs');

const MESSAGE = 'sticky:balance';

function primary() {
  const count = Number(process.env.WORKERS) || os.availableParallelism();
  const workers = Array.from({ length: count }, (_, slot) => cluster.fork({ NODE_APP_INSTANCE: slot }));

  cluster.on('exit', (worker) => {
    const slot = workers.indexOf(worker);
    if (slot >= 0) workers[slot] = cluster.fork({ NODE_APP_INSTANCE: slot });
  });

  const front = net.createServer({ pauseOnConnect: true }, (socket) => {
    const digest = createHash('md5').update(socket.remoteAddress || '').digest();
    workers[digest.readUInt32LE(0) % workers.length].send(MESSAGE, socket);
  });
  front.listen(process.env.PORT || 3000);
}

function worker() {
  const server = http.createServer(answer);
  process.on('message', (message, socket) => {
    // There is none if the client has left on the way.
    if (message !== MESSAGE || !socket) return;
    server.emit('connection', socket);
    socket.resume();
  });
}

if (cluster.isPrimary) primary();
else worker();
