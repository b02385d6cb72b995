// prom-client: a counter of requests, whose sum is asked for, and a gauge, whose greatest value is.
'use strict';

const http = require('node:http');
const client = require('prom-client');

new client.AggregatorRegistry();
const requests = new client.Counter({ name: 'own_requests_total', help: 'Requests.', labelNames: ['path'] });
const slot = new client.Gauge({ name: 'own_slot', help: 'The slot.', aggregator: 'max' });
slot.set(Number(process.env.NODE_APP_INSTANCE));

http
  .createServer((request, response) => {
    requests.inc({ path: request.url });
    response.setHeader('Connection', 'close');
    response.end('{}\n');
  })
  .listen(process.env.PORT);
