// With socket.io where it is installed: for this repository, beside its other programs for Node.
'use strict';

const assert = require('node:assert/strict');
const { createRequire } = require('node:module');
const path = require('node:path');
const { test } = require('node:test');

const { Program } = require('./common');

const CLIENTS = 20;

function find(name) {
  const places = [__filename, path.join(__dirname, '../../../tests/node/package.json')];
  for (const place of places) {
    try {
      return createRequire(place).resolve(name);
    } catch { /* not there */ }
  }
}

const [server, client] = ['socket.io', 'socket.io-client'].map(find);
const skip = server && client ? false : 'socket.io is not installed';

for (const transport of ['websocket', 'polling']) {
  test(`clients reconnect to the next worker, spread out, by ${transport}`, { skip, timeout: 20_000 }, async (t) => {
    const { io } = require(client);
    const environment = { SOCKET_IO: server };
    const first = new Program('socket-io.js', [], { ...environment, PORT: '0' });
    const port = Number(await first.says('\n'));

    const options = { transports: [transport], reconnectionDelay: 20, reconnectionDelayMax: 100, forceNew: true };
    const clients = Array.from({ length: CLIENTS }, () => io(`http://127.0.0.1:${port}`, options));
    t.after(() => clients.forEach((it) => it.close()));
    await Promise.all(clients.map((it) => new Promise((resolve) => it.once('connect', resolve))));
    const left = [];
    for (const it of clients) it.on('disconnect', (reason) => left.push({ reason, at: Date.now() }));

    first.process.kill('SIGINT');
    // The port is free as soon as the first one drains.
    let second;
    do second = new Program('socket-io.js', [], { ...environment, PORT: String(port) });
    while (await second.says('\n').then(() => false, () => true));
    await Promise.all(clients.map((it) => it.connected && left.length === CLIENTS
      ? undefined : new Promise((resolve) => it.once('connect', resolve))));
    assert.equal(await first.ended, 0, first.err);

    assert.equal(left.length, CLIENTS);
    // `io server disconnect` would keep them away.
    assert.ok(left.every(({ reason }) => reason !== 'io server disconnect'), JSON.stringify(left));
    const took = left.at(-1).at - left[0].at;
    if (transport === 'websocket') assert.ok(took > 200, `all of them within ${took} ms`);
    for (const it of clients) assert.equal(await it.timeout(2000).emitWithAck('echo', 5), 5);

    for (const it of clients) it.close();
    second.process.kill('SIGTERM');
    assert.equal(await second.ended, 0, second.err);
  });
}
