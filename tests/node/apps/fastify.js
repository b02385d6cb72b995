// Fastify with its plugin order and its logger. `HOST=localhost` makes it open a server for each of the addresses.
'use strict';

const fastify = require('fastify')({ logger: { level: 'warn' } });
const { about, pause } = require('./about.cjs');

fastify.get('/', async (request) => about(request.ip));

fastify.get('/slow', async (request) => {
  await pause(request.query.ms);
  return about(request.ip);
});

fastify.listen({ port: Number(process.env.PORT || 3000), host: process.env.HOST || '0.0.0.0' })
  .then((address) => console.log(`fastify on ${address}`))
  .catch((error) => {
    fastify.log.error(error);
    process.exit(1);
  });
