// What a worker may ask and say, the same under sticky-lb, PM2, Node's cluster and plain Node.
'use strict';

const cluster = require('node:cluster');
const { Server } = require('node:net');
const { setTimeout: pause } = require('node:timers/promises');

const SIGNALS = { SIGINT: 2, SIGTERM: 15 };
/** How long callbacks may take, in milliseconds, if nothing else is said. */
const DEFAULT_TIMEOUT = 30_000;
/** A second signal within this time is the first one's copy: a terminal and npm send one each. */
const SAME_SIGNAL = 500;
/** How long clients of Socket.IO are closed by default, where the time after the signal is unknown. */
const DEFAULT_SPREAD = 1000;
/** How often some of them are closed. */
const STEP = 20;
/** How long a connection stays that becomes idle during the drain; Node adds a second. 0 would be for ever. */
const KEEP_ALIVE = 1;
/**
 * How long a worker goes on after the message. Clients that were handed over just before it have not been read
 * from then, and `server.close()` of Node 26 would cut them.
 */
const GRACE = 50;

const slot = number('STICKY_LB_SLOT') ?? number('NODE_APP_INSTANCE');
const generation = number('STICKY_LB_GENERATION') ?? 0;
const isWorker = slot !== undefined || cluster.isWorker;

function number(variable) {
  const text = process.env[variable];
  return /^\d+$/.test(text ?? '') ? Number(text) : undefined;
}

function ready() {
  if (!isWorker || !process.connected) return false;
  // A channel that closes meanwhile is no error: nothing waits at its other end.
  process.send('ready', undefined, undefined, () => {});
  return true;
}

/** Callbacks, each with its time limit. */
const callbacks = new Map();
/** The order to end, once it has come: what it was, and when. */
let order;
let isDraining = false;
let unfinished = 0;
let hasFailed = false;

function onDrain(callback, { timeout = DEFAULT_TIMEOUT } = {}) {
  if (typeof callback !== 'function') throw new TypeError('onDrain: expected a function');
  if (!(timeout > 0)) throw new RangeError(`onDrain: timeout ${timeout} is not above 0`);
  const key = Symbol('callback');
  if (callbacks.size === 0) listen();
  callbacks.set(key, { callback, timeout });
  if (isDraining) run(callbacks.get(key));
  return () => {
    if (isDraining || !callbacks.delete(key)) return;
    if (callbacks.size === 0 && !order) unlisten();
  };
}

function listen() {
  process.on('message', onMessage);
  for (const signal of Object.keys(SIGNALS)) process.on(signal, onSignal);
}

function unlisten() {
  process.off('message', onMessage);
  for (const signal of Object.keys(SIGNALS)) process.off(signal, onSignal);
}

function onMessage(message) {
  if (message === 'shutdown' || message?.type === 'shutdown') start('message');
}

function onSignal(signal) {
  // Ctrl-C again, where no manager is that sends both the message and the signal.
  const isAgain = order?.by === 'signal' && Date.now() - order.at > SAME_SIGNAL;
  if (isAgain && !isWorker) process.exit(128 + SIGNALS[signal]);
  start('signal');
}

function start(by) {
  if (order) return;
  order = { by, at: Date.now() };
  // Then what the kernel has is read once more, even if the process was busy for longer.
  if (by === 'message') setTimeout(() => setImmediate(setImmediate, drain), GRACE);
  else drain();
}

function drain() {
  isDraining = true;
  for (const entry of callbacks.values()) run(entry);
  if (callbacks.size === 0) process.exit(0);
}

/** Calls one; the process ends after the last one. */
async function run({ callback, timeout }) {
  unfinished += 1;
  const limit = setTimeout(() => {
    console.error(`sticky-lb: drain not finished after ${timeout} ms`);
    process.exit(1);
  }, timeout);
  try {
    await finished(await callback());
  } catch (error) {
    console.error('sticky-lb: drain failed:', error);
    hasFailed = true;
  }
  clearTimeout(limit);
  unfinished -= 1;
  if (unfinished === 0) process.exit(hasFailed ? 1 : 0);
}

/** `server.close()` returns the server: its connections are waited for. */
async function finished(value) {
  if (!(value instanceof Server)) return;
  // Not `closeIdleConnections`: in Node 26 it cuts clients whose request is still unread.
  value.keepAliveTimeout = KEEP_ALIVE;
  value.prependListener('request', askToClose);
  await new Promise((resolve) => {
    value.once('close', resolve);
    // It may have closed before.
    value.getConnections((_, count) => {
      if (!value.listening && count === 0) resolve();
    });
  });
}

function askToClose(request, response) {
  if (request.httpVersionMajor === 1) response.setHeader('Connection', 'close');
}

function drainSocketIo(io, { over = spread(), timeout } = {}) {
  if (typeof io?.close !== 'function') throw new TypeError('drainSocketIo: expected a Server of socket.io');
  return onDrain(async () => {
    const server = io.httpServer;
    // First of all the listener, else they come back to this process.
    if (server?.listening) server.close();
    await closeClients(io.engine, over);
    await io.close();
    return server;
  }, { timeout });
}

/** A part of the time that is left after the signal, as far as it is known. */
function spread() {
  const killTimeout = number('STICKY_LB_KILL_TIMEOUT');
  return killTimeout === undefined ? DEFAULT_SPREAD : killTimeout / 4;
}

/**
 * Closes connections one after the other. `socket.disconnect()` and `io.disconnectSockets()` are not for that:
 * their clients take it for an order and stay away. Clients whose connection closes reconnect.
 */
async function closeClients(engine, over) {
  const clients = Object.values(engine?.clients ?? {});
  const begin = Date.now();
  let closed = 0;
  while (closed < clients.length) {
    const share = over > 0 ? (Date.now() - begin) / over : 1;
    const due = Math.min(clients.length, Math.floor(share * clients.length) + 1);
    for (; closed < due; closed += 1) clients[closed].close();
    if (closed < clients.length) await pause(STEP);
  }
}

exports.slot = slot;
exports.generation = generation;
exports.isWorker = isWorker;
exports.ready = ready;
exports.onDrain = onDrain;
exports.drainSocketIo = drainSocketIo;
