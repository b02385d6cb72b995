// What these clients have in common: arguments, addresses of their own, an end, and one line of JSON.
'use strict';

const { parseArgs } = require('node:util');

const MOST_SECONDS = 600;
const ADDRESSES_A_NET = 250;

// Numbers and texts by name, each with what it is if nobody says: `{ rate: 100, path: '/' }`.
// All of them have `--seconds`; with `--attended` they print `ready` after the first answer and end with
// standard input, `--seconds` at the latest.
function options(usage, known) {
  const defaults = { seconds: 5, attended: false, net: '127.0', ...known };
  const described = Object.fromEntries(Object.entries(defaults).map(([name, value]) =>
    [name, { type: typeof value === 'boolean' ? 'boolean' : 'string' }]));
  let given;
  try {
    given = parseArgs({ options: described, allowPositionals: true });
    if (given.positionals.length !== 1) throw new Error('HOST:PORT is missing');
  } catch (error) {
    console.error(`${error.message}\nusage: ${usage}`);
    process.exit(2);
  }
  const [host, port] = splitAddress(given.positionals[0]);
  const said = { ...defaults };
  for (const [name, value] of Object.entries(given.values)) {
    said[name] = typeof defaults[name] === 'number' ? Number(value) : value;
  }
  said.seconds = Math.min(said.seconds, MOST_SECONDS);
  return { ...said, host, port };
}

function splitAddress(address) {
  const colon = address.lastIndexOf(':');
  return [address.slice(0, colon).replace(/^\[|\]$/g, ''), Number(address.slice(colon + 1))];
}

// 127.0.1.1, 127.0.1.2 … for the net 127.0, all of them loopback.
function addresses(count, net) {
  return Array.from({ length: count }, (_, index) =>
    `${net}.${1 + Math.floor(index / ADDRESSES_A_NET)}.${1 + (index % ADDRESSES_A_NET)}`);
}

// When they have to stop; `over` is true from then on.
class End {
  constructor({ seconds, attended }) {
    this.over = false;
    this.attended = attended;
    this.come = new Promise((resolve) => {
      const end = () => {
        this.over = true;
        resolve();
      };
      setTimeout(end, seconds * 1000).unref();
      process.once('SIGTERM', end);
      process.once('SIGINT', end);
      if (attended) process.stdin.once('end', end).resume();
    });
    // The timer alone doesn't keep the process alive; this does.
    const alive = setInterval(() => {}, 1000);
    this.come.then(() => clearInterval(alive));
  }

  answered() {
    if (this.attended) console.log('ready');
    this.answered = () => {};
  }

  // A pause that the end cuts short.
  pause(milliseconds) {
    let timer;
    const pause = new Promise((resolve) => { timer = setTimeout(resolve, milliseconds); });
    return Promise.race([pause, this.come]).finally(() => clearTimeout(timer));
  }
}

// How often each thing was seen.
class Counts {
  add(kind) {
    this[kind] = (this[kind] ?? 0) + 1;
  }
}

// Which workers each client has seen.
class Seen {
  constructor() {
    this.workers = new Map();
  }

  add(client, worker) {
    if (!this.workers.has(client)) this.workers.set(client, new Set());
    this.workers.get(client).add(worker);
  }

  // All of them, how many clients have seen more than one, and how many workers there are in all.
  report() {
    const lists = [...this.workers].map(([client, workers]) => [client, [...workers]]);
    const all = new Set(lists.flatMap(([, workers]) => workers));
    return {
      workers: all.size,
      clients_seen: lists.length,
      moved: lists.filter(([, workers]) => workers.length > 1).length,
      seen: Object.fromEntries(lists),
    };
  }
}

// Who has answered: the slot if it says one, else the process; `by: 'pid'` always the process.
function worker(body, by) {
  try {
    const { slot, pid } = JSON.parse(body);
    return String((by === 'pid' ? undefined : slot) ?? pid);
  } catch {
    return body.match(/worker (\d+)/i)?.[1] ?? 'unknown';
  }
}

// What is shown as `::ffff:127.0.0.1` is a client over IPv4, too.
function plain(address) {
  return address?.replace(/^::ffff:/, '');
}

function percentiles(times) {
  times.sort((left, right) => left - right);
  const at = (share) => Number((times[Math.ceil(times.length * share) - 1] ?? 0).toFixed(1));
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

// Prints the line and ends, whatever is still open.
function finish(report) {
  process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
}

module.exports = { options, addresses, End, Counts, Seen, worker, plain, percentiles, finish };
