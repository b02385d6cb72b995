// autocannon, which keeps its connections, asks nothing a second time, and counts each that ends under it.
//
//     cannon.js HOST:PORT [--clients N] [--rate N] [--path /] [--tls] [--seconds S] [--attended]
//
// errors: requests that got no answer, by what ended them where autocannon says it; non2xx: other answers than 200.
// All connections come from 127.0.0.1.
'use strict';

const autocannon = require('autocannon');
const { options, End, finish } = require('./common');

const settings = options('cannon.js HOST:PORT [--clients N] [--rate N] …', {
  clients: 10, rate: 200, path: '/', tls: false,
});
const end = new End(settings);

const { host, port, path, clients, rate, seconds } = settings;
const shots = autocannon({
  url: `${settings.tls ? 'https' : 'http'}://${host}:${port}${path}`,
  connections: clients,
  overallRate: rate,
  duration: seconds + 10,
  tlsOptions: { rejectUnauthorized: false },
}, (error, seen) => {
  if (error) {
    finish({ error: error.message });
    return;
  }
  const { errors, timeouts, resets, non2xx } = seen;
  finish({ ok: seen['2xx'], errors, timeouts, resets, non2xx });
});

shots.once('response', () => end.answered());
end.come.then(() => shots.stop());
