// Socket.IO on a server that the program has made, with a plain answer beside it.
'use strict';

const { createServer } = require('node:http');
const { Server } = require('socket.io');
const { about, answer } = require('./about.cjs');

const server = createServer((request, response) => {
  if (!request.url.startsWith('/socket.io/')) answer(request, response);
});
const io = new Server(server);

io.on('connection', (socket) => {
  const told = about(socket.handshake.address);
  socket.emit('hello', told);
  socket.on('echo', (value, reply) => reply({ ...told, echo: value }));
});

server.listen(process.env.PORT || 3000);
