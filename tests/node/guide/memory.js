// A worker that asks to be replaced when its heap has grown too large. `GET /grow?mb=` makes it grow.
// The guide looks every 30 seconds for 500 MB; `CHECK_EVERY` and `HEAP_LIMIT_MB` are for tests.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const os = require('node:os');

const every = Number(process.env.CHECK_EVERY) || 30_000;
const limit = (Number(process.env.HEAP_LIMIT_MB) || 500) * 1024 * 1024;

function primary() {
  const asked = new Set();

  cluster.on('message', (worker, message) => {
    if (message.type !== 'memory-exceeded' || asked.has(worker.id)) return;
    asked.add(worker.id);
    cluster.fork().once('listening', () => worker.disconnect());
  });
  cluster.on('exit', (worker) => {
    if (!asked.delete(worker.id)) cluster.fork();
  });

  const count = Number(process.env.WORKERS) || os.availableParallelism();
  for (let number = 0; number < count; number += 1) cluster.fork();
}

function worker() {
  const kept = [];

  const server = http.createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost');
    if (url.pathname === '/grow') {
      const mebibytes = Math.min(Number(url.searchParams.get('mb')) || 1, 200);
      // Numbers with fractions, eight bytes each on the heap.
      for (let part = 0; part < mebibytes; part += 1) kept.push(new Array(131_072).fill(part + 0.5));
    }
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({ pid: process.pid, heap: process.memoryUsage().heapUsed }));
  });
  server.listen(3000);

  setInterval(() => {
    if (process.memoryUsage().heapUsed <= limit) return;
    console.log('Memory limit exceeded, asking to be replaced');
    process.send?.({ type: 'memory-exceeded' });
  }, every).unref();
}

if (cluster.isPrimary) primary();
else worker();
