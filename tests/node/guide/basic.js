// One process a core, all on one port; one that ends by itself is replaced.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const os = require('node:os');

function primary() {
  const count = Number(process.env.WORKERS) || os.availableParallelism();
  console.log(`Primary ${process.pid}: ${count} workers`);
  cluster.on('online', (worker) => console.log(`Worker ${worker.process.pid} is online`));
  cluster.on('exit', (worker, code, signal) => {
    console.log(`Worker ${worker.process.pid} ended (${signal || code})`);
    if (!signal) cluster.fork();
  });
  for (let number = 0; number < count; number += 1) cluster.fork();
}

function worker() {
  const server = http.createServer((request, response) => {
    response.writeHead(200);
    response.end(`Hello from worker ${process.pid}\n`);
  });
  server.listen(3000);
  console.log(`Worker ${process.pid} started`);
}

if (cluster.isPrimary) primary();
else worker();
