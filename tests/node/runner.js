// Node's own cluster around a program that has no primary of its own, to compare with.
//
//     WORKERS=2 node runner.js PROGRAM [ARGUMENTS]
//
// SIGHUP replaces all workers, one at a time; SIGTERM and SIGINT end them.
'use strict';

const cluster = require('node:cluster');
const { once } = require('node:events');

const KILL_TIMEOUT = 5_000;

const [exec, ...args] = process.argv.slice(2);
cluster.setupPrimary({ exec, args });

const slots = [];
const expected = new Set();

function fork(slot) {
  const worker = cluster.fork({ NODE_APP_INSTANCE: slot });
  slots[slot] = worker;
  worker.on('exit', (code, signal) => {
    if (expected.has(worker)) return;
    console.error(`slot ${slot} ended (${signal || code})`);
    setTimeout(() => slots[slot] === worker && fork(slot), 200);
  });
  return worker;
}

async function end(worker) {
  expected.add(worker);
  if (worker.isDead()) return;
  const exited = once(worker, 'exit');
  worker.disconnect();
  const timeout = setTimeout(() => worker.process.kill('SIGKILL'), KILL_TIMEOUT);
  await exited;
  clearTimeout(timeout);
}

async function restart() {
  for (const [slot, old] of slots.entries()) {
    await once(fork(slot), 'listening');
    await end(old);
  }
  console.error('restarted');
}

async function stop() {
  await Promise.all(slots.map(end));
  process.exit(0);
}

process.on('SIGHUP', restart);
process.on('SIGTERM', stop);
process.on('SIGINT', stop);

const count = Number(process.env.WORKERS) || 2;
for (let slot = 0; slot < count; slot += 1) fork(slot);
