// A client's address picks its worker. The primary accepts and sends each connection to the worker, whose
// own listener is on a port that nobody knows.
'use strict';

const cluster = require('node:cluster');
const { createHash } = require('node:crypto');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');

const MESSAGE = 'sticky-session:connection';

function primary() {
  const count = Number(process.env.WORKERS) || os.availableParallelism();
  const workers = Array.from({ length: count }, () => cluster.fork());

  cluster.on('exit', (worker) => {
    const slot = workers.indexOf(worker);
    if (slot >= 0) workers[slot] = cluster.fork();
  });

  const front = net.createServer({ pauseOnConnect: true }, (connection) => {
    const digest = createHash('md5').update(connection.remoteAddress || '').digest();
    workers[digest.readUInt32LE(0) % workers.length].send(MESSAGE, connection);
  });
  front.listen(3000, () => console.log('Primary listens on port 3000'));
}

function worker() {
  const server = http.createServer((request, response) => {
    response.writeHead(200);
    response.end(`Worker ${process.pid}\n`);
  });
  server.listen(0, 'localhost');

  process.on('message', (message, connection) => {
    if (message !== MESSAGE) return;
    server.emit('connection', connection);
    connection.resume();
  });
}

if (cluster.isPrimary) primary();
else worker();
