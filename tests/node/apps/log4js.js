// log4js, which leaves writing to the primary when it runs in a worker.
'use strict';

const http = require('node:http');
const log4js = require('log4js');
const { answer } = require('./about.cjs');

log4js.configure({
  appenders: { out: { type: 'stdout', layout: { type: 'basic' } } },
  categories: { default: { appenders: ['out'], level: 'info' } },
});
const log = log4js.getLogger('app');

http.createServer((request, response) => {
  log.info('%s %s', request.method, request.url);
  return answer(request, response);
}).listen(process.env.PORT || 3000, () => log.warn('serving on %s', process.env.PORT || 3000));
