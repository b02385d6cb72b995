// Clients of k6, from many addresses, that count for as long as they are told to.
//
//     k6 run --local-ips 127.5.0.0/24 -e ADDRESS=HOST:PORT -e SECONDS=10 count.k6.js
//
// Prints a line of JSON: what they have seen.

import { Counter } from "k6/metrics";
import ws from "k6/ws";

const answers = new Counter("answers");
const pushes = new Counter("pushes");
const moves = new Counter("moves");
const wrong = new Counter("wrong");
const disconnects = new Counter("disconnects");
const failed = new Counter("failed");

const CLIENTS = 20;

export const options = { vus: CLIENTS, iterations: CLIENTS };

export default function count() {
  let finished = false;
  const end = Date.now() + __ENV.SECONDS * 1000;
  while (!finished) {
    const next = { said: 0, answer: 0, push: 0 };
    const response = ws.connect(`ws://${__ENV.ADDRESS}/count?push=100`, {}, (socket) => {
      socket.on("open", () => {
        socket.setInterval(() => socket.send(JSON.stringify({ number: next.said++ })), 20);
        socket.setTimeout(() => {
          finished = true;
          socket.close(1000);
        }, Math.max(1, end - Date.now()));
      });
      socket.on("message", (text) => {
        const told = JSON.parse(text);
        if (told.event === "answer") {
          answers.add(1);
          if (told.number !== next.answer++ || told.pushed !== next.push) wrong.add(1);
        } else if (told.event === "push") {
          pushes.add(1);
          if (told.number !== next.push++) wrong.add(1);
        } else if (told.event === "resumed") {
          moves.add(1);
        } else if (told.event === "breach") {
          wrong.add(1);
        }
      });
      socket.on("close", () => {
        if (!finished) disconnects.add(1);
      });
    });
    if (!response || response.status !== 101) failed.add(1);
    finished = finished || Date.now() >= end;
  }
}

export function handleSummary({ metrics }) {
  const names = ["answers", "pushes", "moves", "wrong", "disconnects", "failed"];
  const figures = names.map((name) => [name, metrics[name] ? metrics[name].values.count : 0]);
  return { stdout: `${JSON.stringify(Object.fromEntries(figures))}\n` };
}
