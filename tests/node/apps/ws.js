// An echo on `ws`, beside a plain answer on the same port: each message comes back with who has echoed it.
'use strict';

const http = require('node:http');
const { WebSocketServer } = require('ws');
const { about, answer } = require('./about.cjs');

const server = http.createServer(answer);
const sockets = new WebSocketServer({ server });

sockets.on('connection', (socket, request) => {
  const told = about(request.socket.remoteAddress);
  socket.on('error', console.error);
  socket.on('message', (data) => {
    socket.send(JSON.stringify({ ...told, echo: String(data) }));
  });
});

server.listen(process.env.PORT || 3000, () => {
  console.log(`ws on ${server.address().port}`);
});
