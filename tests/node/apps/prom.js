// prom-client in a cluster: the worker counts, and answers a message of the primary with all its counts.
'use strict';

const http = require('node:http');
const client = require('prom-client');
const { answer } = require('./about.cjs');

// Its listener for the primary's question is set when one is made.
new client.AggregatorRegistry();
client.collectDefaultMetrics();
const requests = new client.Counter({
  name: 'app_requests_total',
  help: 'Requests by path.',
  labelNames: ['path'],
});

http.createServer((request, response) => {
  requests.inc({ path: request.url.split('?')[0] });
  return answer(request, response);
}).listen(process.env.PORT || 3000);
