// The plainest server: the port alone, a text where it comes from the environment.
'use strict';

const http = require('node:http');
const { answer } = require('./about.cjs');

http.createServer(answer).listen(process.env.PORT || 3000);
