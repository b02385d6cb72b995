// Each request is told to the primary; a worker leaves when it is sent `shutdown`, which SIGHUP does to one
// after another, each with its successor in place.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const os = require('node:os');

const KILL_TIMEOUT = 10_000;
const CLOSE_TIMEOUT = 5_000;
const PAUSE = 1_000;

function primary() {
  const known = new Map();

  function fork() {
    const worker = cluster.fork();
    known.set(worker.id, { since: Date.now(), requests: 0, leaving: false });
    return worker;
  }

  function dismiss(worker) {
    worker.send({ type: 'shutdown' });
  }

  cluster.on('message', (worker, message) => {
    if (message.type === 'request' && known.has(worker.id)) known.get(worker.id).requests += 1;
  });

  cluster.on('exit', (worker, code, signal) => {
    const { since, requests, leaving } = known.get(worker.id);
    known.delete(worker.id);
    console.log(`Worker ${worker.process.pid} exited`, { code, signal, uptime: Date.now() - since, requests });
    if (!leaving) fork();
  });

  function stop() {
    for (const [id, state] of known) {
      state.leaving = true;
      const worker = cluster.workers[id];
      if (!worker) continue;
      dismiss(worker);
      setTimeout(() => {
        if (!worker.isDead()) worker.process.kill('SIGKILL');
      }, KILL_TIMEOUT).unref();
    }
  }

  function restart(left) {
    const id = left.shift();
    if (id === undefined) {
      console.log('Rolling restart complete');
      return;
    }
    const old = cluster.workers[id];
    if (!old) {
      restart(left);
      return;
    }
    known.get(old.id).leaving = true;
    fork().once('listening', () => {
      dismiss(old);
      setTimeout(restart, PAUSE, left);
    });
  }

  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  process.on('SIGHUP', () => restart(Object.keys(cluster.workers)));

  const count = Number(process.env.WORKERS) || os.availableParallelism();
  console.log(`Primary ${process.pid}: ${count} workers`);
  for (let number = 0; number < count; number += 1) fork();
}

function worker() {
  const server = http.createServer((request, response) => {
    process.send?.({ type: 'request' });
    response.writeHead(200);
    response.end(`Worker ${process.pid}\n`);
  });
  server.listen(3000);

  process.on('message', (message) => {
    if (message.type !== 'shutdown') return;
    console.log(`Worker ${process.pid} shuts down`);
    server.close(() => {
      console.log(`Worker ${process.pid} has closed all connections`);
      process.exit(0);
    });
    setTimeout(() => process.exit(0), CLOSE_TIMEOUT);
  });
}

if (cluster.isPrimary) primary();
else worker();
