// SIGHUP replaces all workers, one at a time. One that leaves answers 503 and ends the connections it knows.
'use strict';

const cluster = require('node:cluster');
const { once } = require('node:events');
const http = require('node:http');
const os = require('node:os');
const { setTimeout: sleep } = require('node:timers/promises');

const CLOSE_TIMEOUT = 5_000;
const PAUSE = 1_000;

function primary() {
  const leaving = new Set();

  async function restart() {
    console.log('Restarting all workers');
    for (const old of Object.values(cluster.workers)) {
      const next = cluster.fork();
      await once(next, 'listening');
      console.log(`Worker ${next.process.pid} is ready`);
      leaving.add(old);
      old.send({ type: 'shutdown' });
      await sleep(PAUSE);
    }
    console.log('Restart complete');
  }

  process.on('SIGHUP', () => restart().catch(console.error));

  cluster.on('exit', (worker, code) => {
    if (leaving.delete(worker) || code === 0) return;
    console.log(`Worker ${worker.process.pid} died, restarting`);
    cluster.fork();
  });

  const count = Number(process.env.WORKERS) || os.availableParallelism();
  for (let number = 0; number < count; number += 1) cluster.fork();
}

function worker() {
  const sockets = new Set();
  let leaving = false;

  const server = http.createServer((request, response) => {
    if (leaving) {
      response.writeHead(503);
      response.end('Server is shutting down');
      return;
    }
    const { socket } = request;
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    response.writeHead(200);
    response.end(`Worker ${process.pid}\n`);
  });
  server.listen(3000, () => console.log(`Worker ${process.pid} listens`));

  process.on('message', (message) => {
    if (message.type !== 'shutdown') return;
    leaving = true;
    console.log(`Worker ${process.pid} shuts down`);
    server.close(() => {
      console.log(`Worker ${process.pid} closed`);
      process.exit(0);
    });
    for (const socket of sockets) socket.end();
    setTimeout(() => process.exit(0), CLOSE_TIMEOUT);
  });
}

if (cluster.isPrimary) primary();
else worker();
