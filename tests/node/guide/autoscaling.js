// Each worker tells how many requests it has at work whenever one ends; their mean decides how many workers
// there are, from two to as many as there are cores.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const os = require('node:os');

const EVERY = 5_000;
const HIGH = 100;
const LOW = 20;

function primary() {
  const least = 2;
  const most = Math.max(least, Number(process.env.WORKERS) || os.availableParallelism());
  const loads = new Map();
  let requests = 0;
  let before = 0;

  function add() {
    if (loads.size >= most) return;
    const worker = cluster.fork();
    loads.set(worker.id, 0);
    console.log(`Worker ${worker.process.pid} added: ${loads.size}`);
  }

  function remove() {
    const [id] = [...loads].reduce((idlest, next) => (next[1] < idlest[1] ? next : idlest));
    loads.delete(id);
    cluster.workers[id].send({ type: 'shutdown' });
    console.log(`Worker ${cluster.workers[id].process.pid} removed: ${loads.size}`);
  }

  cluster.on('message', (worker, message) => {
    if (message.type !== 'request-complete') return;
    requests += 1;
    if (loads.has(worker.id)) loads.set(worker.id, message.count || 0);
  });

  cluster.on('exit', (worker, code) => {
    loads.delete(worker.id);
    if (code !== 0) add();
  });

  setInterval(() => {
    const rate = (requests - before) / (EVERY / 1_000);
    before = requests;
    const load = [...loads.values()].reduce((sum, each) => sum + each, 0) / loads.size;
    console.log(`Requests/s: ${rate.toFixed(2)}, load: ${load.toFixed(2)}, workers: ${loads.size}`);
    if (load > HIGH) add();
    else if (load < LOW && loads.size > least) remove();
  }, EVERY);

  for (let number = 0; number < least; number += 1) add();
}

function worker() {
  let active = 0;

  const server = http.createServer((request, response) => {
    active += 1;
    setTimeout(() => {
      active -= 1;
      process.send?.({ type: 'request-complete', count: active });
      response.writeHead(200);
      response.end('OK');
    }, Math.random() * 100);
  });
  server.listen(3000);

  process.on('message', (message) => {
    if (message.type === 'shutdown') server.close(() => process.exit(0));
  });
}

if (cluster.isPrimary) primary();
else worker();
