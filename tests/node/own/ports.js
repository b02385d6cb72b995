// Listens on the front's port and, by its arguments, elsewhere; says on the front's port where.
'use strict';
const http = require('node:http');
const net = require('node:net');
const dgram = require('node:dgram');
const fs = require('node:fs');

const found = { pid: process.pid, slot: process.env.NODE_APP_INSTANCE };
const wanted = process.argv.slice(2);
let left = wanted.length;

function done(name, value) {
  found[name] = value;
  left -= 1;
  if (left === 0) front();
}

function front() {
  const server = http.createServer((_, answer) => answer.end(JSON.stringify(found)));
  server.listen(Number(process.env.PORT), '127.0.0.1');
}

function serve(name, server, ...where) {
  server.on('error', (error) => done(name, error.code));
  server.listen(...where, () => done(name, server.address().port ?? server.address()));
}

const tell = () => http.createServer((_, answer) => answer.end(String(process.pid)));

for (const one of wanted) {
  const [kind, value] = one.split('=');
  switch (kind) {
    case 'tcp':
      serve(one, tell(), Number(value), '127.0.0.1');
      break;
    case 'all':
      serve(one, tell(), Number(value));
      break;
    case 'localhost':
      serve(one, tell(), 0, 'localhost');
      break;
    case 'path':
      serve(one, net.createServer((socket) => socket.end(String(process.pid))), value);
      break;
    case 'unlink':
      fs.rmSync(value, { force: true });
      serve(one, net.createServer((socket) => socket.end(String(process.pid))), value);
      break;
    case 'udp': {
      const socket = dgram.createSocket('udp4');
      socket.on('error', (error) => done(one, error.code));
      socket.on('message', (_, from) => socket.send(String(process.pid), from.port, from.address));
      socket.bind(Number(value), '127.0.0.1', () => done(one, socket.address().port));
      break;
    }
    case 'twice': {
      const [first, second] = [tell(), tell()];
      first.listen(Number(value), '127.0.0.1', () => serve(one, second, Number(value), '127.0.0.1'));
      break;
    }
    case 'probe': {
      // As port probers do: open and close, again and again, and then for good.
      let count = 0;
      const again = () => {
        const server = net.createServer();
        server.on('error', (error) => done(one, `${error.code} after ${count}`));
        server.listen(Number(value), '127.0.0.1', () => {
          count += 1;
          if (count <= 8) server.close(again);
          else done(one, `${count} times`);
        });
      };
      again();
      break;
    }
    default:
      throw new Error(`unknown: ${one}`);
  }
}
