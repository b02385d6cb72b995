// A plain server for Node: nothing in it is made for sticky-lb.
//
//     sticky-lb --workers 4 --port 3000 -- node examples/server.js
'use strict';

const http = require('node:http');

let visits = 0;

http.createServer((request, response) => {
  visits += 1;
  response.end(`process ${process.pid} has had ${visits} requests, this one from ${request.socket.remoteAddress}\n`);
}).listen(process.env.PORT || 3000);
