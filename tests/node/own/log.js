// log4js, as it is set up by default for standard output.
'use strict';

const http = require('node:http');
const log4js = require('log4js');

log4js.configure({ appenders: { out: { type: 'stdout' } }, categories: { default: { appenders: ['out'], level: 'info' } } });
const log = log4js.getLogger('own');

http
  .createServer((request, response) => {
    log.info('asked for %s by', request.url, { slot: process.env.NODE_APP_INSTANCE });
    log.error(new Error('no such thing'));
    response.setHeader('Connection', 'close');
    response.end('{}\n');
  })
  .listen(process.env.PORT);
