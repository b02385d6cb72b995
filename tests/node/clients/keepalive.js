// Clients that keep their connection and ask again and again, each from an address of its own.
//
//     keepalive.js HOST:PORT [--clients N] [--pause MS] [--path /] [--by slot|pid] [--tls]
//                  [--timeout MS] [--seconds S] [--attended] [--net 127.0]
//
// A GET on a connection that was used before and that ended without a byte of an answer is asked once more on a
// fresh one, as browsers do: `retried`. All else that fails is in `failed`, by kind; with `fresh` before it where
// the connection was not used before, with `retry` where it was the second try.
// announced: answers that said `Connection: close`; connections: how many there were in all.
'use strict';

const http = require('node:http');
const https = require('node:https');
const { options, addresses, End, Counts, Seen, worker, percentiles, finish } = require('./common');

const PAUSE_AFTER_FAILURE = 50;
const UNANSWERED = new Set(['reset', 'empty']);
const KINDS = { ECONNREFUSED: 'refused', ECONNRESET: 'reset', EPIPE: 'reset' };

const settings = options('keepalive.js HOST:PORT [--clients N] [--pause MS] …', {
  clients: 20, pause: 10, path: '/', by: 'slot', tls: false, timeout: 10_000,
});
const end = new End(settings);
const result = { ok: 0, retried: new Counts(), failed: new Counts(), announced: 0, connections: 0 };
const seen = new Seen();
const times = [];
const { request, Agent } = settings.tls ? https : http;

// Resolves to the kind of failure, if it failed, and whether its connection had been used before.
function get(agent, localAddress) {
  return new Promise((resolve) => {
    const started = performance.now();
    const { host, port, path } = settings;
    const asked = request({ host, port, path, localAddress, agent, rejectUnauthorized: false });
    const timer = setTimeout(() => {
      done('timeout');
      asked.destroy();
    }, settings.timeout);
    function done(kind) {
      clearTimeout(timer);
      resolve({ kind, reused: asked.reusedSocket });
    }
    asked.on('socket', (socket) => {
      if (socket.connecting) result.connections += 1;
    });
    asked.on('error', (error) => {
      done(error.message === 'socket hang up' ? 'empty' : KINDS[error.code] ?? error.code ?? error.message);
    });
    asked.on('response', (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (part) => { body += part; });
      response.on('error', () => done('cut'));
      response.on('end', () => {
        if (response.headers.connection === 'close') result.announced += 1;
        if (response.statusCode !== 200) {
          done(`status ${response.statusCode}`);
          return;
        }
        times.push(performance.now() - started);
        seen.add(localAddress, worker(body, settings.by));
        done();
      });
    });
    asked.end();
  });
}

async function keepAsking(address) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  while (!end.over) {
    let { kind, reused } = await get(agent, address);
    let prefix = reused ? '' : 'fresh ';
    if (reused && UNANSWERED.has(kind)) {
      result.retried.add(kind);
      // Whatever is left of the old connections is not asked again.
      agent.destroy();
      ({ kind } = await get(agent, address));
      prefix = 'retry ';
    }
    if (kind) {
      result.failed.add(`${prefix}${kind}`);
      await end.pause(PAUSE_AFTER_FAILURE);
    } else {
      result.ok += 1;
      end.answered();
      await end.pause(settings.pause);
    }
  }
  agent.destroy();
}

async function main() {
  await Promise.all(addresses(settings.clients, settings.net).map(keepAsking));
  finish({ ...result, milliseconds: percentiles(times), ...seen.report() });
}

main();
