// A program for Node that is a bad worker in one way: `node wrong_worker.js FAULT`. With the fault `none` it is none.
// tests/conformance.rs has the check that has to find each.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');

const fault = process.argv[2];
const port = Number(process.env.PORT);

function block(milliseconds) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

function plainServer(options, answer) {
  return net.createServer(options, (socket) => {
    socket.on('data', () => answer(socket));
    if (fault !== 'no-error-handler') socket.on('error', () => {});
  });
}

function server() {
  switch (fault) {
    case 'mute':
      return net.createServer({ pauseOnConnect: true }, () => {});
    case 'no-error-handler':
      return plainServer({}, (socket) => socket.write('answer\n'));
    case 'never-ends':
      return plainServer({ allowHalfOpen: true }, (socket) => socket.write('answer\n'));
    default:
      return http.createServer((request, response) => {
        if (fault === 'verbose') fs.writeSync(1, 'x'.repeat(4000) + '\n');
        if (fault === 'opens-files') fs.openSync('/dev/null');
        response.end('ok\n');
      });
  }
}

const it = server();
if (fault === 'blocks') {
  it.on('connection', (socket) => {
    setTimeout(() => {
      if (socket.bytesRead === 0) block(30_000);
    }, 50);
  });
}
if (fault === 'cuts') {
  it.close = function close(done) {
    this.closeAllConnections();
    return http.Server.prototype.close.call(this, done);
  };
}
if (fault === 'stays') {
  process.on('SIGINT', () => {});
  setInterval(() => {}, 1000);
}
if (fault === 'exit-code') process.on('disconnect', () => process.exit(3));
if (fault === 'leaves') spawn('sleep', ['30'], { detached: true, stdio: 'ignore' }).unref();
if (fault === 'throws') throw new Error('no configuration');
if (fault === 'not-listening') setInterval(() => {}, 1000);
else it.listen(fault === 'other-port' ? 20_000 + (process.pid % 10_000) : port);
