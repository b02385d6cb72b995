// Listens on a port of its own choice, and never on the front's.
'use strict';
require('node:http')
  .createServer((_, answer) => answer.end())
  .listen(Number(process.argv[2]), '127.0.0.1');
