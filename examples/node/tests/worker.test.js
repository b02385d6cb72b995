'use strict';

const assert = require('node:assert/strict');
const http = require('node:http');
const path = require('node:path');
const { test } = require('node:test');
const { pathToFileURL } = require('node:url');

const { Program } = require('./common');

const UNDER_STICKY_LB = { STICKY_LB_SLOT: '3', STICKY_LB_GENERATION: '12', NODE_APP_INSTANCE: '9' };

async function facts(environment) {
  const worker = new Program('worker.js', ['none'], environment);
  const said = await worker.says('ready');
  worker.process.kill('SIGKILL');
  await worker.ended;
  const [first, ready] = said.split('\n');
  return { ...JSON.parse(first), ready: ready === 'ready true', messages: worker.messages };
}

test('the slot is that of sticky-lb, else of PM2, else unknown', async () => {
  assert.deepEqual(await facts(UNDER_STICKY_LB),
    { slot: 3, generation: 12, isWorker: true, ready: true, messages: ['ready'] });
  assert.deepEqual(await facts({ NODE_APP_INSTANCE: '0' }),
    { slot: 0, generation: 0, isWorker: true, ready: true, messages: ['ready'] });
  for (const outside of [{}, { NODE_APP_INSTANCE: '' }, { NODE_APP_INSTANCE: 'x' }]) {
    assert.deepEqual(await facts(outside), { generation: 0, isWorker: false, ready: false, messages: [] });
  }
});

test('by import as by require', async () => {
  const required = require('..');
  const imported = await import(pathToFileURL(path.join(__dirname, '..', 'index.js')).href);
  assert.equal(Object.keys(required).length, 6);
  for (const name of Object.keys(required)) assert.equal(imported[name], required[name], name);
});

for (const [name, order] of [
  ['the message', (worker) => worker.send('shutdown')],
  ['the message as an object', (worker) => worker.send({ type: 'shutdown' })],
  ['SIGINT', (worker) => worker.kill('SIGINT')],
  ['SIGTERM', (worker) => worker.kill('SIGTERM')],
]) {
  test(`${name} is an order to end, and a promise is waited for`, async () => {
    const worker = new Program('worker.js', ['slow'], UNDER_STICKY_LB);
    await worker.says('ready');
    order(worker.process);
    assert.equal(await worker.ended, 0);
    assert.match(worker.out, /drain\ndone\n$/);
  });
}

test('several orders are one', async () => {
  const worker = new Program('worker.js', ['slow'], UNDER_STICKY_LB);
  await worker.says('ready');
  worker.process.send({ type: 'other' });
  worker.process.send('shutdown');
  await worker.says('drain');
  worker.process.send('shutdown');
  worker.process.kill('SIGINT');
  worker.process.kill('SIGTERM');
  assert.equal(await worker.ended, 0);
  assert.equal(worker.out.split('drain').length, 2, worker.out);
  assert.match(worker.out, /done/);
});

test('a callback that fails or does not end leads to exit code 1', async () => {
  for (const [words, error] of [[['throws'], /drain failed: Error: broken/], [['never', '300'], /not finished after 300 ms/]]) {
    const worker = new Program('worker.js', words);
    await worker.says('ready');
    worker.process.kill('SIGTERM');
    assert.equal(await worker.ended, 1);
    assert.match(worker.err, error);
  }
});

test('a second Ctrl-C ends a program without a manager at once', async () => {
  const worker = new Program('worker.js', ['never']);
  await worker.says('ready');
  worker.process.kill('SIGINT');
  await worker.says('drain');
  worker.process.kill('SIGINT');
  await new Promise((resolve) => setTimeout(resolve, 700));
  assert.equal(worker.process.exitCode, null);
  worker.process.kill('SIGINT');
  assert.equal(await worker.ended, 130);
});

test('without a callback, and with one taken back, signals do what they do', async () => {
  const worker = new Program('worker.js', ['none']);
  await worker.says('ready');
  worker.process.kill('SIGTERM');
  assert.equal(await worker.ended, 'SIGTERM');

  const before = process.listenerCount('SIGINT');
  const takeBack = require('..').onDrain(() => {});
  assert.equal(process.listenerCount('SIGINT'), before + 1);
  takeBack();
  takeBack();
  assert.equal(process.listenerCount('SIGINT'), before);
});

test('what is no callback and no time is refused', () => {
  const { onDrain, drainSocketIo } = require('..');
  assert.throws(() => onDrain(), TypeError);
  assert.throws(() => onDrain(() => {}, { timeout: 0 }), RangeError);
  assert.throws(() => drainSocketIo({}), TypeError);
});

function get(port, pathname, agent) {
  return new Promise((resolve, reject) => {
    http.get({ port, path: pathname, agent }, (response) => {
      let body = '';
      response.on('data', (data) => { body += data; }).on('end', () => resolve(body));
    }).on('error', reject);
  });
}

test('a server that closes tells the clients that ask on', async () => {
  const worker = new Program('server.js', ['plain']);
  const port = Number(await worker.says('\n'));
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const busy = get(port, '/slow', agent);
  const next = new Promise((resolve, reject) => {
    http.get({ port, path: '/', agent }, (response) => response.resume().on('end', () => resolve(response)))
      .on('error', reject);
  });
  await new Promise((resolve) => setTimeout(resolve, 100));
  worker.process.kill('SIGTERM');
  assert.equal(await busy, 'whole\n');
  assert.equal((await next).headers.connection, 'close');
  assert.equal(await worker.ended, 0);
});

for (const form of ['plain', 'async']) {
  test(`a server that closes finishes its requests, ${form}`, async () => {
    const worker = new Program('server.js', [form]);
    const port = Number(await worker.says('\n'));
    const agent = new http.Agent({ keepAlive: true });
    await get(port, '/', agent);
    const answer = get(port, '/slow', agent).catch((error) => error.message);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const begin = Date.now();
    worker.process.kill('SIGTERM');
    assert.equal(await answer, 'whole\n');
    assert.equal(await worker.ended, 0);
    // Not the 5 s for which Node keeps an idle connection.
    assert.ok(Date.now() - begin < 3500, `${Date.now() - begin} ms`);
    agent.destroy();
  });

  test(`an idle server that closes ends, ${form}`, async () => {
    const worker = new Program('server.js', [form]);
    await worker.says('\n');
    worker.process.kill('SIGTERM');
    assert.equal(await worker.ended, 0);
  });
}
