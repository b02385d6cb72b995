// A server for Node and Deno on a listening socket that it finds as descriptor 3.
'use strict';

const http = require('node:http');
const process = require('node:process');

const server = http.createServer((request, response) => {
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify({
    pid: process.pid,
    slot: process.env.NODE_APP_INSTANCE,
    remote: request.socket.remoteAddress,
  }));
});
server.listen({ fd: 3 });
process.on('SIGTERM', () => server.close(() => process.exit(0)));
