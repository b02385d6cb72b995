// Takes its connections by a message, and says nothing before: after so many milliseconds.
'use strict';
const http = require('node:http');
const fs = require('node:fs');

const server = http.createServer((_, answer) => {
  const count = (name) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${name}`).startsWith('socket:') ? 1 : 0;
    } catch {
      return 0;
    }
  };
  const sockets = fs.readdirSync('/proc/self/fd').map(count).reduce((sum, one) => sum + one, 0);
  answer.end(JSON.stringify({ pid: process.pid, slot: process.env.NODE_APP_INSTANCE, sockets }));
});

setTimeout(() => {
  process.on('message', (message, socket) => {
    const type = typeof message === 'object' ? message.type : message;
    if (type !== process.argv[3] || !socket) return;
    server.emit('connection', socket);
    socket.resume();
  });
}, Number(process.argv[2]));

// Nothing else would keep it alive.
setInterval(() => {}, 1000);
