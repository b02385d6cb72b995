// TLS ends in the program. An options object with a backlog.
//
//     TLS_KEY=key.pem TLS_CERT=cert.pem node https.js
'use strict';

const fs = require('node:fs');
const https = require('node:https');
const { answer } = require('./about.cjs');

const key = fs.readFileSync(process.env.TLS_KEY);
const cert = fs.readFileSync(process.env.TLS_CERT);

const server = https.createServer({ key, cert }, answer);
server.listen({ port: process.env.PORT || 3000, backlog: 1024 }, () => {
  console.log(`https on ${server.address().port}`);
});
