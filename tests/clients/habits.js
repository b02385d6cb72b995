// Clients on Node's `ws`, each with a habit of its own, at work until standard input ends.
//
//     habits.js HOST:PORT
//
// Prints `ready` when each has had an answer, and a line of JSON at the end: what they have seen.
"use strict";

const { WebSocket } = require("ws");

const MEBIBYTE = 1024 * 1024;

const seen = { exchanges: {}, disconnects: [], failed: [], wrong: [], moves: 0 };
let done = false;

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// A socket whose messages are taken one by one; taking one rejects when the socket has closed.
class Client {
  static async connect(url) {
    const client = new Client();
    client.socket = new WebSocket(url, { perMessageDeflate: false, maxPayload: 0 });
    client.messages = [];
    client.closed = new Promise((resolve) => {
      client.socket.on("close", (code) => {
        client.code = code;
        client.wake?.();
        resolve(code);
      });
    });
    client.socket.on("message", (data) => {
      client.messages.push(data);
      client.wake?.();
    });
    client.socket.on("error", (error) => { client.error = error; });
    const opened = new Promise((resolve) => client.socket.on("open", () => resolve(true)));
    // It may have been closed at once, too.
    if (!(await Promise.race([opened, client.closed.then(() => false)]))) {
      throw new Error(`not opened: ${client.error}`);
    }
    return client;
  }

  async take() {
    while (this.messages.length === 0) {
      if (this.code !== undefined) throw new Disconnected(this.code);
      await new Promise((resolve) => { this.wake = resolve; });
    }
    return this.messages.shift();
  }

  // A pong, or the end.
  async pong() {
    this.socket.ping();
    await Promise.race([new Promise((resolve) => this.socket.once("pong", resolve)), this.closed]);
    if (this.code !== undefined) throw new Disconnected(this.code);
  }
}

class Disconnected extends Error {
  constructor(code) {
    super(`closed with ${code}`);
    this.code = code;
  }
}

function check(habit, expected, found) {
  if (Buffer.compare(Buffer.from(expected), found) !== 0) {
    seen.wrong.push(`${habit}: ${found.subarray(0, 80)} and not ${expected.slice(0, 80)}`);
  }
}

const habits = {
  async counts(client, number) {
    client.socket.send(JSON.stringify({ number }));
    for (;;) {
      const told = JSON.parse(await client.take());
      if (told.event === "answer") {
        if (told.number !== number) seen.wrong.push(`counts: ${told.number} and not ${number}`);
        return;
      }
      if (told.event === "resumed") seen.moves += 1;
      if (told.event === "breach") seen.wrong.push(`counts: ${JSON.stringify(told)}`);
    }
  },

  async fragments_with_pings(client, number) {
    const parts = [`${number} `, "in ", "parts"];
    for (const [index, part] of parts.entries()) {
      client.socket.send(part, { fin: index === parts.length - 1 });
      // The pong comes while the message is unfinished.
      await client.pong();
    }
    check("fragments", parts.join(""), await client.take());
  },

  async large_messages(client, number) {
    const message = Buffer.alloc(MEBIBYTE, number % 256);
    client.socket.send(message);
    check("large", message, await client.take());
  },

  async slow_reader(client, number) {
    const messages = Array.from({ length: 64 }, (_, part) =>
      `${number}.${part} `.padEnd(16 * 1024, "x"));
    client.socket.pause();
    for (const message of messages) client.socket.send(message);
    await sleep(300);
    client.socket.resume();
    for (const message of messages) check("slow reader", message, await client.take());
  },

  async leaves_in_the_middle(client, number) {
    for (let part = 0; part < 5; part += 1) client.socket.send(`${number}.${part}`);
    check("leaves", `${number}.0`, await client.take());
    client.socket.close(1000);
    await client.closed;
  },
};

async function keep(url, name, answered) {
  while (!done) {
    let client;
    try {
      client = await Client.connect(url);
    } catch (error) {
      seen.failed.push(String(error));
      await sleep(100);
      continue;
    }
    try {
      for (let number = 0; !done && client.code === undefined; number += 1) {
        await habits[name](client, number);
        seen.exchanges[name] = (seen.exchanges[name] ?? 0) + 1;
        answered();
        await sleep(5);
      }
      // Between two exchanges; 1000 is a client's own end.
      if (client.code !== undefined && client.code !== 1000) seen.disconnects.push(client.code);
      client.socket.close(1000);
    } catch (error) {
      if (!(error instanceof Disconnected)) throw error;
      seen.disconnects.push(error.code);
    }
  }
}

async function main(address) {
  const clients = [];
  const answers = Object.keys(habits).map((name) => {
    const path = name === "counts" ? "/count?push=50" : "/echo";
    return new Promise((answered) => {
      clients.push(keep(`ws://${address}${path}`, name, answered));
    });
  });
  await Promise.all(answers);
  console.log("ready");
  for await (const _ of process.stdin);
  done = true;
  await Promise.all(clients);
  console.log(JSON.stringify(seen));
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
