// Express with the port and a callback, which gets the error if there is one.
'use strict';

const express = require('express');
const { about, pause } = require('./about.cjs');

const app = express();
const port = process.env.PORT || 3000;

app.get('/', (request, response) => {
  response.json(about(request.ip));
});

app.get('/slow', async (request, response) => {
  await pause(request.query.ms);
  response.json(about(request.ip));
});

app.listen(port, (error) => {
  if (error) throw error;
  console.log(`express on ${port}`);
});
