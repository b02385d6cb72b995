// Clients of Socket.IO, each from an address of its own: polling first, then the upgrade; an echo each time.
//
//     socketio-clients.js HOST:PORT [--clients N] [--pause MS] [--transports polling,websocket]
//                         [--reconnects N] [--seconds S] [--attended] [--net 127.0]
//
// With `--reconnects` each client drops its connection so many times, spread over the time, and comes back.
// connected: clients that were connected at some time; sessions: connections in all; lost: echoes without an answer
// though the connection stayed; cut: those whose connection ended first; disconnects and errors by what they say.
// Of a client's workers, `seen` has each process.
'use strict';

const http = require('node:http');
const { io } = require('socket.io-client');
const { options, addresses, End, Counts, Seen, plain, finish } = require('./common');

const ECHO_TIMEOUT = 5_000;

const settings = options('socketio-clients.js HOST:PORT [--clients N] …', {
  clients: 200, pause: 250, transports: 'polling,websocket', reconnects: 0,
});
const end = new End(settings);
const result = {
  connected: 0, sessions: 0, upgraded: 0, echoed: 0, wrong: 0, lost: 0, cut: 0, wrong_address: 0,
  dropped: 0, disconnects: new Counts(), errors: new Counts(),
};
const seen = new Seen();

function connect(localAddress) {
  const { host, port } = settings;
  // Not kept alive: the client's xmlhttprequest-ssl (2.1.2) repeats a request on a reused connection that was reset, and
  // doesn't send it; the client then waits for its ping timeout. Browsers have their own.
  const agent = new http.Agent({ keepAlive: false, localAddress });
  const socket = io(`http://${host}:${port}`, {
    agent,
    forceNew: true,
    transports: settings.transports.split(','),
    reconnectionDelay: 50,
    reconnectionDelayMax: 1_000,
  });

  let before = false;
  socket.on('connect', () => {
    result.sessions += 1;
    if (!before) result.connected += 1;
    before = true;
    if (socket.io.engine.transport.name === 'websocket') result.upgraded += 1;
    else socket.io.engine.once('upgrade', () => { result.upgraded += 1; });
  });
  socket.on('hello', ({ pid, remote }) => {
    seen.add(localAddress, pid);
    if (plain(remote) !== localAddress) result.wrong_address += 1;
  });
  socket.on('disconnect', (reason) => {
    if (!end.over) result.disconnects.add(reason);
  });
  socket.on('connect_error', (error) => {
    const answer = error.context?.responseText;
    if (!end.over) result.errors.add(answer ? `${error.message}: ${answer}` : error.message);
  });
  return socket;
}

async function echo(socket, address, number) {
  let ended = false;
  const closed = () => { ended = true; };
  socket.once('disconnect', closed);
  try {
    const told = await socket.timeout(ECHO_TIMEOUT).emitWithAck('echo', number);
    seen.add(address, told.pid);
    if (told.echo === number) result.echoed += 1;
    else result.wrong += 1;
    end.answered();
  } catch {
    if (end.over) return;
    result[ended ? 'cut' : 'lost'] += 1;
  } finally {
    socket.off('disconnect', closed);
  }
}

async function keepTalking(address, index) {
  // Not all in the same instant.
  await end.pause(index * 2);
  const socket = connect(address);
  const turns = (settings.seconds * 1000) / (settings.reconnects + 1);
  let next = performance.now() + turns;
  let left = settings.reconnects;
  for (let number = 0; !end.over; number += 1) {
    if (socket.connected) await echo(socket, address, number);
    if (left > 0 && socket.connected && performance.now() >= next) {
      left -= 1;
      next += turns;
      result.dropped += 1;
      socket.io.engine.close();
    }
    await end.pause(settings.pause);
  }
  socket.disconnect();
}

async function main() {
  await Promise.all(addresses(settings.clients, settings.net).map(keepTalking));
  finish({ ...result, ...seen.report() });
}

main();
