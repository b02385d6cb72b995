// Clients on `ws`, each from an address of its own, that get each message back and connect again when they are cut.
//
//     ws-clients.js HOST:PORT [--clients N] [--pause MS] [--seconds S] [--attended] [--net 127.0]
//
// connections: how many were opened; echoed: messages that came back; unanswered: those that a close has cut off;
// changed: messages of one connection that another process has answered; closes by code; errors by what they say.
'use strict';

const { WebSocket } = require('ws');
const { options, addresses, End, Counts, Seen, plain, finish } = require('./common');

const PAUSE_AFTER_FAILURE = 50;
const NORMAL = 1000;

const settings = options('ws-clients.js HOST:PORT [--clients N] [--pause MS] …', { clients: 50, pause: 100 });
const end = new End(settings);
const result = {
  connections: 0, echoed: 0, wrong: 0, unanswered: 0, changed: 0, wrong_address: 0,
  closes: new Counts(), errors: new Counts(),
};
const seen = new Seen();

// From the first message to the close.
function talk(localAddress) {
  return new Promise((resolve) => {
    const socket = new WebSocket(`ws://${settings.host}:${settings.port}/`, { localAddress });
    let number = 0;
    let waiting = false;
    let pid;

    const say = () => {
      if (socket.readyState !== WebSocket.OPEN) return;
      socket.send(String(number));
      waiting = true;
    };
    const close = () => socket.close(NORMAL);
    end.come.then(close);

    socket.on('open', () => {
      result.connections += 1;
      say();
    });
    socket.on('message', async (data) => {
      const told = JSON.parse(data);
      waiting = false;
      if (told.echo === String(number)) result.echoed += 1;
      else result.wrong += 1;
      if (pid !== undefined && pid !== told.pid) result.changed += 1;
      pid = told.pid;
      if (plain(told.remote) !== localAddress) result.wrong_address += 1;
      seen.add(localAddress, told.slot ?? told.pid);
      end.answered();
      number += 1;
      await end.pause(settings.pause);
      if (!end.over) say();
    });
    socket.on('error', (error) => {
      if (!end.over) result.errors.add(error.code || error.message);
    });
    socket.on('close', (code) => {
      if (!end.over) {
        result.closes.add(code);
        if (waiting) result.unanswered += 1;
      }
      resolve();
    });
  });
}

async function keepTalking(address) {
  while (!end.over) {
    await talk(address);
    await end.pause(PAUSE_AFTER_FAILURE);
  }
}

async function main() {
  await Promise.all(addresses(settings.clients, settings.net).map(keepTalking));
  finish({ ...result, ...seen.report() });
}

main();
