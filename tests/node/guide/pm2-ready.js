// For PM2 with `wait_ready`: `ready` when it listens, and SIGINT closes it. Without PM2 it is a plain server.
'use strict';

const http = require('node:http');

const KILL_TIMEOUT = 10_000;
const port = process.env.PORT || 3000;

const server = http.createServer((request, response) => {
  response.writeHead(200);
  response.end('OK');
});

server.listen(port, () => {
  console.log(`Server runs on port ${port}`);
  if (process.send) process.send('ready');
});

process.on('SIGINT', () => {
  console.log('SIGINT: closing');
  server.close((error) => {
    if (error) {
      console.error('Not closed:', error);
      process.exit(1);
    }
    console.log('Server closed');
    process.exit(0);
  });
  setTimeout(() => {
    console.error('Not closed in time');
    process.exit(1);
  }, KILL_TIMEOUT);
});
