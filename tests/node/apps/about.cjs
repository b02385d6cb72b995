// What each of these programs says about itself, and how it takes its time.
'use strict';

function about(address) {
  return {
    pid: process.pid,
    slot: process.env.NODE_APP_INSTANCE,
    remote: address,
    version: process.version,
  };
}

// At most ten seconds; a query without a number is no time.
function pause(milliseconds) {
  const time = Math.min(Number(milliseconds) || 0, 10_000);
  return new Promise((resolve) => { setTimeout(resolve, time); });
}

// The listener of a plain `http` or `https` server.
async function answer(request, response) {
  const url = new URL(request.url, 'http://localhost');
  if (url.pathname === '/slow') await pause(url.searchParams.get('ms'));
  const found = url.pathname === '/' || url.pathname === '/slow';
  response.writeHead(found ? 200 : 404, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(about(request.socket.remoteAddress)));
}

const INSTANT = 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nok\n';

// The listener of a plain `net` server: one answer, whatever is asked, and the end.
function instant(socket) {
  socket.on('error', () => {});
  socket.once('data', () => socket.end(INSTANT));
}

module.exports = { about, answer, instant, pause };
