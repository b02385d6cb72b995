// Socket.IO with @socket.io/sticky: the worker's server never listens, nothing is sent before the first client.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const os = require('node:os');
const { Server } = require('socket.io');
const { setupPrimary, setupWorker } = require('@socket.io/sticky');
const { about, answer } = require('../apps/about.cjs');

function primary() {
  cluster.setupPrimary({ serialization: 'advanced' });
  const front = http.createServer();
  setupPrimary(front, { loadBalancingMethod: 'least-connection' });
  front.listen(process.env.PORT || 3000);

  const fork = (slot) => {
    cluster.fork({ NODE_APP_INSTANCE: slot }).on('exit', () => fork(slot));
  };
  const count = Number(process.env.WORKERS) || os.availableParallelism();
  for (let slot = 0; slot < count; slot += 1) fork(slot);
}

function worker() {
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith('/socket.io/')) answer(request, response);
  });
  const io = new Server(server);
  setupWorker(io);

  io.on('connection', (socket) => {
    const told = about(socket.handshake.address);
    socket.emit('hello', told);
    socket.on('echo', (value, reply) => reply({ ...told, echo: value }));
  });
}

if (cluster.isPrimary) primary();
else worker();
