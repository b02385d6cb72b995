// Express in each worker: health, work that blocks the event loop, and the worker's name in a header.
'use strict';

const cluster = require('node:cluster');
const os = require('node:os');
const express = require('express');

function createApp() {
  const app = express();

  app.use((request, response, next) => {
    response.setHeader('X-Worker-ID', String(process.pid));
    next();
  });

  app.get('/health', (request, response) => {
    response.json({
      status: 'healthy',
      worker: process.pid,
      uptime: process.uptime(),
      memory: process.memoryUsage(),
    });
  });

  app.get('/heavy', (request, response) => {
    const start = Date.now();
    let result = 0;
    for (let number = 0; number < 1e8; number += 1) result += Math.sqrt(number);
    response.json({ worker: process.pid, duration: Date.now() - start, result });
  });

  return app;
}

function primary() {
  const count = Number(process.env.WORKERS) || os.availableParallelism();
  console.log(`Primary ${process.pid}: ${count} workers`);
  cluster.on('exit', (worker) => {
    console.log(`Worker ${worker.process.pid} ended`);
    cluster.fork();
  });
  for (let number = 0; number < count; number += 1) cluster.fork();
}

if (cluster.isPrimary) {
  primary();
} else {
  createApp().listen(3000, () => console.log(`Worker ${process.pid} listens on port 3000`));
}
