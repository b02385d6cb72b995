// Clients of the chat with rooms, each from an address of its own. All join one room, each says something once, and
// all have to hear it; then one asks who is in the room and which workers answer.
//
//     chat-clients.js HOST:PORT [--clients N] [--seconds S] [--net 127.0]
//
// heard: messages in all, which has to be `expected`; who: clients that one worker knows of, with those of others;
// answered: processes that have answered a question to all; pids: processes that the clients are on.
'use strict';

const http = require('node:http');
const { io } = require('socket.io-client');
const { options, addresses, End, finish } = require('./common');

const CALL_TIMEOUT = 10_000;

const settings = options('chat-clients.js HOST:PORT [--clients N] …', { clients: 16, seconds: 30 });
const end = new End(settings);
const result = { joined: 0, expected: settings.clients ** 2, heard: 0, twice: 0, who: 0, answered: [], pids: [] };

async function main() {
  let allHeard;
  const complete = new Promise((resolve) => { allHeard = resolve; });
  const sockets = [];
  // One after another, so that a primary that counts sessions spreads them.
  for (const localAddress of addresses(settings.clients, settings.net)) {
    const agent = new http.Agent({ keepAlive: true, localAddress });
    const socket = io(`http://${settings.host}:${settings.port}`, { agent, forceNew: true });
    const texts = new Set();
    socket.on('said', ({ text }) => {
      if (texts.has(text)) result.twice += 1;
      texts.add(text);
      result.heard += 1;
      if (result.heard === result.expected) allHeard();
    });
    const pid = await socket.timeout(CALL_TIMEOUT).emitWithAck('join', 'room');
    if (!result.pids.includes(pid)) result.pids.push(pid);
    result.joined += 1;
    sockets.push(socket);
  }
  for (const [index, socket] of sockets.entries()) socket.emit('say', 'room', `from ${index}`);
  await Promise.race([complete, end.pause(5_000)]);
  const [first] = sockets;
  result.who = (await first.timeout(CALL_TIMEOUT).emitWithAck('who', 'room')).length;
  result.answered = await first.timeout(CALL_TIMEOUT).emitWithAck('workers');
}

Promise.race([main(), end.come])
  .catch((error) => { result.error = error.message; })
  .finally(() => finish(result));
