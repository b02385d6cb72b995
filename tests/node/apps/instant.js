// An app that does next to nothing: one answer, and the end. Beside it a front's share is large.
'use strict';

const net = require('node:net');
const { instant } = require('./about.cjs');

net.createServer(instant).listen(process.env.PORT || 3000);
