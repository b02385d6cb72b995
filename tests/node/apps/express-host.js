// Express with a host: the backlog on the wire is `false`.
'use strict';

const express = require('express');
const { about, pause } = require('./about.cjs');

const app = express();
const port = process.env.PORT || 3000;
const host = process.env.HOST || '127.0.0.1';

app.get(['/', '/slow'], async (request, response) => {
  await pause(request.query.ms);
  response.json(about(request.ip));
});

app.listen(port, host, () => {
  console.log(`express on ${host}:${port}`);
});
