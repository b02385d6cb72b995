// hapi: the server is told its port when it is made.
'use strict';

const Hapi = require('@hapi/hapi');
const { about, pause } = require('./about.cjs');

async function main() {
  const server = Hapi.server({ port: process.env.PORT || 3000, host: process.env.HOST });
  server.route({
    method: 'GET',
    path: '/',
    handler: (request) => about(request.info.remoteAddress),
  });
  server.route({
    method: 'GET',
    path: '/slow',
    handler: async (request) => {
      await pause(request.query.ms);
      return about(request.info.remoteAddress);
    },
  });
  await server.start();
  console.log(`hapi on ${server.info.uri}`);
}

main();
