// Lines over TCP: `slow N` is answered after N ms, any other line at once. Port, host, backlog and callback.
'use strict';

const net = require('node:net');
const readline = require('node:readline');
const { about, pause } = require('./about.cjs');

const server = net.createServer((socket) => {
  socket.on('error', () => socket.destroy());
  const remote = socket.remoteAddress;
  readline.createInterface({ input: socket }).on('line', async (line) => {
    const [word, time] = line.split(' ');
    if (word === 'slow') await pause(time);
    if (socket.writable) socket.write(`${JSON.stringify({ ...about(remote), line })}\n`);
  });
});

server.listen(Number(process.env.PORT || 3000), process.env.HOST || '0.0.0.0', 511, () => {
  console.log('net', server.address());
});
