// Fresh connections with one GET each, at a steady rate whatever the answers take, from many addresses in turn.
//
//     fresh.js HOST:PORT [--rate N] [--addresses N] [--path /] [--by slot|pid] [--tls] [--timeout MS]
//              [--seconds S] [--attended] [--net 127.0]
//
// failed: how often by kind; `refused`, `reset` (before an answer), `empty` (closed before an answer), `cut`
// (in the middle of one), `timeout`, `status N`, or the error's code. wrong_address: answers whose `remote`
// is not the address that the client has.
'use strict';

const http = require('node:http');
const https = require('node:https');
const { options, addresses, End, Counts, Seen, worker, plain, percentiles, finish } = require('./common');

// More than these at once are not sent but counted.
const MOST_AT_ONCE = 4000;
const TICK = 10;

const settings = options('fresh.js HOST:PORT [--rate N] [--addresses N] …', {
  rate: 100, addresses: 50, path: '/', by: 'slot', tls: false, timeout: 10_000,
});
const end = new End(settings);
const from = addresses(settings.addresses, settings.net);
const result = { sent: 0, ok: 0, failed: new Counts(), wrong_address: 0 };
const seen = new Seen();
const times = [];
const { request } = settings.tls ? https : http;

const KINDS = { ECONNREFUSED: 'refused', ECONNRESET: 'reset', EPIPE: 'reset' };

// Resolves to the kind of failure, or to nothing.
function get(localAddress) {
  return new Promise((resolve) => {
    const started = performance.now();
    const { host, port, path } = settings;
    const asked = request({ host, port, path, localAddress, agent: false, rejectUnauthorized: false });
    const timer = setTimeout(() => {
      resolve('timeout');
      asked.destroy();
    }, settings.timeout);
    const done = (kind) => {
      clearTimeout(timer);
      resolve(kind);
    };
    asked.on('error', (error) => {
      done(error.message === 'socket hang up' ? 'empty' : KINDS[error.code] ?? error.code ?? error.message);
    });
    asked.on('response', (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (part) => { body += part; });
      response.on('error', () => done('cut'));
      response.on('end', () => {
        if (response.statusCode !== 200) {
          done(`status ${response.statusCode}`);
          return;
        }
        times.push(performance.now() - started);
        seen.add(localAddress, worker(body, settings.by));
        const remote = body.match(/"remote":"([^"]+)"/)?.[1];
        if (remote && plain(remote) !== localAddress) result.wrong_address += 1;
        done();
      });
    });
    asked.end();
  });
}

async function main() {
  const open = new Set();
  const started = performance.now();
  let due = 0;
  while (!end.over) {
    due = Math.floor(((performance.now() - started) / 1000) * settings.rate) + 1;
    while (result.sent < due) {
      const address = from[result.sent % from.length];
      result.sent += 1;
      if (open.size >= MOST_AT_ONCE) {
        result.failed.add('not sent');
        continue;
      }
      const one = get(address).then((kind) => {
        open.delete(one);
        if (kind) {
          result.failed.add(kind);
        } else {
          result.ok += 1;
          end.answered();
        }
      });
      open.add(one);
    }
    await end.pause(TICK);
  }
  await Promise.all(open);
  finish({ ...result, milliseconds: percentiles(times), ...seen.report() });
}

main();
