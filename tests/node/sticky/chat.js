// Rooms over all workers by @socket.io/cluster-adapter. A client may `join` a room, `say` something to all in it
// (`said`), ask `who` is in it on any worker, and ask `workers` who of them answers.
// `LISTEN=1`: the worker listens itself; otherwise @socket.io/sticky hands it its clients.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const os = require('node:os');
const { Server } = require('socket.io');
const { createAdapter, setupPrimary: relay } = require('@socket.io/cluster-adapter');
const { setupPrimary, setupWorker } = require('@socket.io/sticky');
const { about, answer } = require('../apps/about.cjs');

function primary() {
  cluster.setupPrimary({ serialization: 'advanced' });
  relay();
  const front = http.createServer();
  setupPrimary(front);
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
  const io = new Server(server, { adapter: createAdapter() });

  io.on('ask', (reply) => reply(process.pid));

  io.on('connection', (socket) => {
    const told = about(socket.handshake.address);
    socket.emit('hello', told);
    socket.on('echo', (value, reply) => reply({ ...told, echo: value }));
    socket.on('join', (room, reply) => {
      socket.join(room);
      socket.data.pid = process.pid;
      reply(process.pid);
    });
    socket.on('say', (room, text) => io.to(room).emit('said', { room, text, pid: process.pid }));
    socket.on('who', async (room, reply) => {
      const sockets = await io.in(room).fetchSockets();
      reply(sockets.map(({ id, data }) => ({ id, pid: data.pid })));
    });
    socket.on('workers', async (reply) => {
      const others = await io.serverSideEmitWithAck('ask');
      reply([process.pid, ...others]);
    });
  });

  if (process.env.LISTEN) server.listen(process.env.PORT || 3000);
  else setupWorker(io);
}

if (cluster.isPrimary) primary();
else worker();
