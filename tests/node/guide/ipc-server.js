// The messages of ipc.js behind a server, so that a client can see what each worker was told:
// `POST /increment`, `GET /counter`, `POST /broadcast?text=`, `GET /seen`.
// `IPC_NAMES` is an object of JSON that gives the messages other names.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const os = require('node:os');

const renamed = JSON.parse(process.env.IPC_NAMES || '{}');
const name = (type) => renamed[type] ?? type;

function primary() {
  let counter = 0;

  cluster.on('message', (from, message) => {
    const workers = Object.values(cluster.workers);
    switch (message.type) {
      case name('increment'):
        counter += 1;
        for (const worker of workers) worker.send({ type: name('counter-update'), payload: counter });
        break;
      case name('get-counter'):
        from.send({ type: name('counter-value'), payload: counter });
        break;
      case name('broadcast'):
        for (const worker of workers) {
          if (worker.id === from.id) continue;
          worker.send({ type: name('broadcast-message'), payload: message.payload, from: from.id });
        }
        break;
    }
  });

  cluster.on('exit', () => cluster.fork());
  const count = Number(process.env.WORKERS) || os.availableParallelism();
  for (let number = 0; number < count; number += 1) cluster.fork();
}

function worker() {
  let counter = null;
  const broadcasts = [];
  const asked = [];

  process.on('message', (message) => {
    switch (message.type) {
      case name('counter-update'):
        counter = message.payload;
        break;
      case name('counter-value'):
        asked.splice(0).forEach((answer) => answer(message.payload));
        break;
      case name('broadcast-message'):
        broadcasts.push({ from: message.from, payload: message.payload });
        break;
    }
  });

  const server = http.createServer(async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    let told = {};
    switch (url.pathname) {
      case '/increment':
        process.send({ type: name('increment') });
        break;
      case '/counter':
        told.value = await new Promise((resolve) => {
          asked.push(resolve);
          process.send({ type: name('get-counter') });
        });
        break;
      case '/broadcast':
        process.send({ type: name('broadcast'), payload: url.searchParams.get('text') });
        break;
      case '/seen':
        told = { counter, broadcasts };
        break;
    }
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({ pid: process.pid, ...told }));
  });
  server.listen(3000);
}

if (cluster.isPrimary) primary();
else worker();
