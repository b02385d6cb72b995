// The port for clients and one for metrics, `METRICS_PORT`: any that is free unless it is told.
'use strict';

const http = require('node:http');
const { answer } = require('./about.cjs');

let requests = 0;

const metrics = http.createServer((request, response) => {
  response.end(`app_requests_total ${requests}\n`);
});
const server = http.createServer((request, response) => {
  requests += 1;
  return answer(request, response);
});

metrics.listen(process.env.METRICS_PORT || 0, '127.0.0.1', () => {
  console.log(`metrics on ${metrics.address().port}`);
  server.listen(process.env.PORT || 3000, () => console.log('serving'));
});
metrics.on('error', (error) => console.error(`no metrics: ${error.code}`));
