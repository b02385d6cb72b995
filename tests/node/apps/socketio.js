// Socket.IO that makes its own http server, which answers 404 to all but its clients.
'use strict';

const { Server } = require('socket.io');
const { about } = require('./about.cjs');

const io = new Server();

io.on('connection', (socket) => {
  const told = about(socket.handshake.address);
  socket.emit('hello', told);
  socket.on('echo', (value, reply) => reply({ ...told, echo: value }));
});

io.listen(process.env.PORT || 3000);
