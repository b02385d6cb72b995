// Users of the chat from many local addresses: they join, talk, listen and leave, first few, then many.
//
//     cargo build --release --examples
//     cargo run --release -- --workers 4 --port 3000 -- ./target/release/examples/chat
//     k6 run --local-ips 127.5.0.1-127.5.0.100 examples/load/chat.js
//
// k6 gives each user one of the addresses, so a user who comes back finds the same worker. Rooms are in
// one worker; so each user has a room of its own here, and waits for its own words.
//
// -e ADDRESS=127.0.0.1:3000   where the chat is
// -e USERS=200                at the peak
// -e SECONDS=30               in all: up in a third, then steady, then down in a sixth
// -e VISIT=5                  seconds that a user stays
// -e P99=500                  milliseconds that 99 % of lines take at most, and connecting twice that
// -e JSON=1                   a line of JSON instead of the summary

import { sleep } from "k6";
import exec from "k6/execution";
import { Counter, Trend } from "k6/metrics";
import ws from "k6/ws";

const ADDRESS = __ENV.ADDRESS || "127.0.0.1:3000";
const USERS = Number(__ENV.USERS || 200);
const SECONDS = Number(__ENV.SECONDS || 30);
const VISIT = Number(__ENV.VISIT || 5);
const P99 = Number(__ENV.P99 || 500);
// A user says something this often.
const PAUSE_MS = 250;
// How long a user waits for its last words.
const ECHO_TIMEOUT = Math.max(4, P99 / 1000);
const MAX_SLOTS = 64;

const visits = new Counter("chat_visits");
const failed = new Counter("chat_visits_failed");
const disconnects = new Counter("chat_disconnects");
const strayed = new Counter("chat_users_strayed");
const said = new Counter("chat_lines_said");
const lost = new Counter("chat_lines_lost");
const moves = new Counter("chat_moves");
const connecting = new Trend("chat_connecting", true);
const echo = new Trend("chat_echo", true);
const slots = Array.from({ length: MAX_SLOTS }, (_, slot) => new Counter(`chat_slot_${slot}`));

export const options = {
  scenarios: {
    chat: {
      executor: "ramping-vus",
      startVUs: 1,
      stages: [
        { target: USERS, duration: `${Math.ceil(SECONDS / 3)}s` },
        { target: USERS, duration: `${Math.ceil(SECONDS / 2)}s` },
        { target: 0, duration: `${Math.ceil(SECONDS / 6)}s` },
      ],
      gracefulRampDown: `${Math.ceil(VISIT + ECHO_TIMEOUT) + 1}s`,
      gracefulStop: `${Math.ceil(VISIT + ECHO_TIMEOUT) + 1}s`,
    },
  },
  // Those that stay at 0 need a value to be looked at.
  thresholds: {
    chat_visits: ["count>0"],
    chat_visits_failed: ["count==0"],
    chat_disconnects: ["count==0"],
    chat_users_strayed: ["count==0"],
    chat_lines_lost: ["count==0"],
    chat_connecting: [`p(99)<${2 * P99}`],
    chat_echo: [`p(99)<${P99}`],
  },
  summaryTrendStats: ["med", "p(99)", "max"],
};

// Of this user, over all its visits.
let home = null;

export default function visit() {
  const user = `user-${exec.vu.idInTest}`;
  const start = Date.now();
  let finished = false;
  // Lines on their way, with the time when each was said.
  const away = new Map();
  let next = 0;
  const response = ws.connect(`ws://${ADDRESS}/ws?room=${user}&name=${user}`, {}, (socket) => {
    socket.on("open", () => {
      connecting.add(Date.now() - start);
      const talk = () => {
        if (Date.now() - start > VISIT * 1000) {
          // The last words have an answer by the next time.
          finished = true;
          if (away.size === 0 || Date.now() - start > (VISIT + ECHO_TIMEOUT) * 1000) socket.close(1000);
          return;
        }
        away.set(`${next}`, Date.now());
        socket.send(`${next++}`);
        said.add(1);
      };
      socket.setInterval(talk, PAUSE_MS);
    });
    socket.on("message", (text) => {
      const told = JSON.parse(text);
      if (told.event === "welcome") {
        slots[told.slot % MAX_SLOTS].add(1);
        if (home !== null && home !== told.slot) strayed.add(1);
        home = told.slot;
      } else if (told.event === "resumed") {
        moves.add(1);
      } else if (told.event === "said" && away.has(told.text)) {
        echo.add(Date.now() - away.get(told.text));
        away.delete(told.text);
      }
    });
    socket.on("close", () => {
      if (!finished) disconnects.add(1);
    });
  });
  visits.add(1);
  lost.add(away.size);
  if (!response || response.status !== 101) {
    failed.add(1);
    // Where nothing listens, as many would fail as a processor can.
    sleep(1);
  }
}

export function handleSummary({ metrics }) {
  const count = (name) => (metrics[name] ? metrics[name].values.count : 0);
  const times = (name) => {
    const values = metrics[name] ? metrics[name].values : {};
    return { p50: values.med, p99: values["p(99)"], max: values.max };
  };
  const result = {
    visits: count("chat_visits"),
    visits_failed: count("chat_visits_failed"),
    disconnects: count("chat_disconnects"),
    users_strayed: count("chat_users_strayed"),
    lines_said: count("chat_lines_said"),
    lines_lost: count("chat_lines_lost"),
    moves: count("chat_moves"),
    connecting_ms: times("chat_connecting"),
    echo_ms: times("chat_echo"),
    visits_by_slot: {},
    broken_thresholds: [],
  };
  for (const [name, { thresholds }] of Object.entries(metrics)) {
    const slot = name.match(/^chat_slot_(\d+)$/);
    if (slot && count(name) > 0) result.visits_by_slot[slot[1]] = count(name);
    for (const [threshold, { ok }] of Object.entries(thresholds || {})) {
      if (!ok) result.broken_thresholds.push(`${name}: ${threshold}`);
    }
  }
  return { stdout: __ENV.JSON ? `${JSON.stringify(result)}\n` : shown(result) };
}

function shown(result) {
  const ms = (value) => (value === undefined ? "-" : `${value.toFixed(1)} ms`);
  const row = (name, { p50, p99, max }) => `${name}: p50 ${ms(p50)}, p99 ${ms(p99)}, longest ${ms(max)}\n`;
  const slots = Object.entries(result.visits_by_slot).sort(([one], [other]) => one - other);
  return [
    `\n${result.visits} visits, ${result.visits_failed} failed, ${result.disconnects} disconnected, `,
    `${result.users_strayed} of another slot than before, ${result.moves} moves\n`,
    `${result.lines_said} lines said, ${result.lines_lost} lost\n`,
    row("connecting", result.connecting_ms),
    row("a line and back", result.echo_ms),
    ...slots.map(([slot, count]) => `slot ${slot}: ${count} visits, ${Math.round((count * 100) / result.visits)} %\n`),
    ...result.broken_thresholds.map((threshold) => `threshold broken: ${threshold}\n`),
  ].join("");
}
