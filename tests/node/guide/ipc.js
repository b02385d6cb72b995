// A counter that the primary keeps for all, and messages from one worker to all others. There is no server.
// The guide counts every five seconds; `COUNT_EVERY` is for tests.
'use strict';

const cluster = require('node:cluster');
const os = require('node:os');

const every = Number(process.env.COUNT_EVERY) || 5_000;

function primary() {
  let counter = 0;

  cluster.on('message', (from, message) => {
    const workers = Object.values(cluster.workers);
    switch (message.type) {
      case 'increment':
        counter += 1;
        for (const worker of workers) worker.send({ type: 'counter-update', payload: counter });
        break;
      case 'get-counter':
        from.send({ type: 'counter-value', payload: counter });
        break;
      case 'broadcast':
        for (const worker of workers) {
          if (worker.id === from.id) continue;
          worker.send({ type: 'broadcast-message', payload: message.payload, from: from.id });
        }
        break;
    }
  });

  cluster.on('exit', () => cluster.fork());
  const count = Number(process.env.WORKERS) || os.availableParallelism();
  for (let number = 0; number < count; number += 1) cluster.fork();
}

function worker() {
  process.on('message', (message) => {
    switch (message.type) {
      case 'counter-update':
        console.log(`Worker ${process.pid}: counter updated to ${message.payload}`);
        break;
      case 'counter-value':
        console.log(`Worker ${process.pid}: counter is ${message.payload}`);
        break;
      case 'broadcast-message':
        console.log(`Worker ${process.pid}: broadcast from ${message.from}:`, message.payload);
        break;
    }
  });
  setInterval(() => process.send?.({ type: 'increment' }), every);
}

if (cluster.isPrimary) primary();
else worker();
