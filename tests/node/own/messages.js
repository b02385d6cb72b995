// A server whose requests send messages to the primary, and tell which messages have come.
// `POST /send` sends its body, which is JSON, upwards; `GET /seen` answers the messages that came, oldest first;
// `GET /large?bytes=N` broadcasts a text of that length; `GET /` answers who this is.
'use strict';

const http = require('node:http');

const seen = [];
process.on('message', (message) => seen.push(message));

http
  .createServer(async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    let body = '';
    for await (const piece of request) body += piece;
    let answer = { pid: process.pid, id: require('node:cluster').worker.id, slot: process.env.NODE_APP_INSTANCE };
    if (url.pathname === '/send') {
      const repeat = Number(url.searchParams.get('repeat') ?? 1);
      for (let number = 0; number < repeat; number += 1) process.send(JSON.parse(body));
    }
    if (url.pathname === '/large') process.send({ type: 'broadcast', payload: 'x'.repeat(Number(url.searchParams.get('bytes'))) });
    if (url.pathname === '/seen') answer = seen.map((it) => (it.payload?.length > 1000 ? { ...it, payload: it.payload.length } : it));
    response.setHeader('Connection', 'close');
    response.end(JSON.stringify(answer) + '\n');
  })
  .listen(process.env.PORT);
