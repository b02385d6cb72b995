// Socket.IO's cluster adapter: `GET /ask` asks all other workers who they are, `GET /count` tells how many there are,
// and `GET /` answers who this is.
'use strict';

const http = require('node:http');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/cluster-adapter');

const server = http.createServer(async (request, response) => {
  let answer = { pid: process.pid };
  if (request.url === '/ask') {
    answer = await new Promise((resolve) => io.serverSideEmit('who', (error, pids) => resolve({ error: error?.message, pids })));
  } else if (request.url === '/count') {
    answer = await io.of('/').adapter.serverCount();
  }
  response.setHeader('Connection', 'close');
  response.end(JSON.stringify(answer) + '\n');
});
const io = new Server({ adapter: createAdapter() });
io.on('who', (answer) => answer(process.pid));
io.attach(server);
server.listen(process.env.PORT);
