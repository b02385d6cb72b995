// Every form of `listen`, one a run: `node forms.js FORM`. Prints the address that the program sees, or the error.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { answer } = require('./about.cjs');

const port = Number(process.env.PORT || 3000);
const unix = path.join(process.env.SOCKET_DIR || os.tmpdir(), `forms-${process.pid}.sock`);

const forms = {
  number: (server) => server.listen(port),
  text: (server) => server.listen(String(port)),
  callback: (server) => server.listen(port, () => {}),
  backlog: (server) => server.listen(port, 128),
  host: (server) => server.listen(port, '127.0.0.1'),
  'host-callback': (server) => server.listen(port, '127.0.0.1', () => {}),
  'host-backlog': (server) => server.listen(port, '127.0.0.1', 128),
  any: (server) => server.listen(port, '0.0.0.0'),
  any6: (server) => server.listen(port, '::'),
  loopback6: (server) => server.listen(port, '::1'),
  name: (server) => server.listen(port, 'localhost'),
  options: (server) => server.listen({ port }),
  'options-host': (server) => server.listen({ host: '127.0.0.1', port, backlog: 64 }),
  only6: (server) => server.listen({ port, ipv6Only: true }),
  'only6-host': (server) => server.listen({ port, host: '::', ipv6Only: true }),
  exclusive: (server) => server.listen({ port, exclusive: true }),
  reuseport: (server) => server.listen({ port, reusePort: true }),
  abort: (server) => server.listen({ port, signal: new AbortController().signal }),
  free: (server) => server.listen(0),
  path: (server) => server.listen(unix),
  'path-options': (server) => server.listen({ path: unix, readableAll: true }),
  abstract: (server) => server.listen(`\0forms-${process.pid}`),
  fd: (server) => server.listen({ fd: Number(process.env.LISTEN_FD || 3) }),
};

// The same port a second time once the first has been closed.
forms.again = (server) => {
  const first = http.createServer();
  first.once('error', failed);
  first.listen(port, () => first.close(() => server.listen(port)));
};

// The same port by two servers at once, which share it in one worker of Node's.
forms.twice = (server) => {
  const first = http.createServer(answer);
  first.once('error', failed);
  first.listen(port, () => server.listen(port));
};

function failed(error) {
  console.log(JSON.stringify({ error: error.code, message: error.message }));
}

function main(form) {
  if (!Object.hasOwn(forms, form)) {
    console.error(`one of: ${Object.keys(forms).join(' ')}`);
    process.exit(2);
  }
  const server = http.createServer(answer);
  server.on('error', failed);
  server.on('listening', () => console.log(JSON.stringify({ address: server.address() })));
  process.on('exit', () => fs.rmSync(unix, { force: true }));
  forms[form](server);
}

main(process.argv[2] || process.env.FORM);
