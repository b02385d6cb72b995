// Koa, which has nothing but middleware.
'use strict';

const { default: Koa } = require('koa');
const { about, pause } = require('./about.cjs');

const app = new Koa();

app.use(async (context) => {
  if (context.path === '/slow') await pause(context.query.ms);
  else if (context.path !== '/') return;
  context.body = about(context.ip);
});

app.listen(process.env.PORT || 3000);
