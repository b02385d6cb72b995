// Node's own sticky primary, to compare with: it accepts, and an MD5 of the client's address picks the worker that gets
// the connection as a message. Workers are those of guide/sticky.js, with an app of `apps/` each.
//
//     PORT=3000 WORKERS=2 APP=http|instant node sticky-primary.js
//
// SIGHUP replaces all workers, one at a time; SIGTERM and SIGINT end them.
'use strict';

const cluster = require('node:cluster');
const { createHash } = require('node:crypto');
const { once } = require('node:events');
const http = require('node:http');
const net = require('node:net');
const { answer, instant } = require('./apps/about.cjs');

const MESSAGE = 'sticky-session:connection';
const KILL_TIMEOUT = 5_000;
const SERVERS = {
  http: () => http.createServer(answer),
  instant: () => net.createServer(instant),
};

function primary() {
  const count = Number(process.env.WORKERS) || 2;
  const leaving = new Set();
  const fork = (slot) => cluster.fork({ NODE_APP_INSTANCE: slot });
  const workers = Array.from({ length: count }, (_, slot) => fork(slot));

  cluster.on('exit', (worker) => {
    const slot = workers.indexOf(worker);
    if (slot >= 0 && !leaving.has(worker)) workers[slot] = fork(slot);
  });

  const front = net.createServer({ pauseOnConnect: true }, (connection) => {
    const digest = createHash('md5').update(connection.remoteAddress || '').digest();
    workers[digest.readUInt32LE(0) % workers.length].send(MESSAGE, connection);
  });

  // A successor first, then all connections to it; the old worker finishes those that it has.
  async function restart() {
    for (const [slot, old] of workers.entries()) {
      const next = fork(slot);
      await once(next, 'listening');
      workers[slot] = next;
      leaving.add(old);
      const exited = once(old, 'exit');
      old.disconnect();
      const timeout = setTimeout(() => old.process.kill('SIGKILL'), KILL_TIMEOUT);
      await exited;
      clearTimeout(timeout);
      leaving.delete(old);
    }
    console.error('restarted');
  }

  function stop() {
    for (const worker of workers) worker.process.kill('SIGKILL');
    process.exit(0);
  }

  process.on('SIGHUP', restart);
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);

  Promise.all(workers.map((worker) => once(worker, 'listening')))
    .then(() => front.listen(process.env.PORT || 3000));
}

function worker() {
  const server = SERVERS[process.env.APP || 'http']();
  server.listen(0, 'localhost');

  process.on('message', (message, connection) => {
    // There is none if the client has left on the way.
    if (message !== MESSAGE || !connection) return;
    server.emit('connection', connection);
    connection.resume();
  });
}

if (cluster.isPrimary) primary();
else worker();
