// Runs a program of `fixtures` as a worker, and keeps what it says.
'use strict';

const { fork } = require('node:child_process');
const { once } = require('node:events');
const path = require('node:path');
const { after } = require('node:test');

const LIMIT = 10_000;

function clean(environment) {
  const kept = Object.entries(process.env)
    .filter(([name]) => !/^(NODE_|STICKY_LB_|PORT$)/.test(name));
  return { ...Object.fromEntries(kept), ...environment };
}

const running = new Set();
after(() => running.forEach((it) => it.kill('SIGKILL')));

class Program {
  constructor(name, words = [], environment = {}) {
    this.process = fork(path.join(__dirname, 'fixtures', name), words, {
      env: clean(environment), stdio: ['ignore', 'pipe', 'pipe', 'ipc'], execArgv: [],
    });
    running.add(this.process);
    this.out = '';
    this.err = '';
    this.messages = [];
    this.process.stdout.on('data', (data) => { this.out += data; });
    this.process.stderr.on('data', (data) => { this.err += data; });
    this.process.on('message', (message) => this.messages.push(message));
    this.limit = setTimeout(() => this.process.kill('SIGKILL'), LIMIT);
    // After the exit and the last of the output.
    this.ended = once(this.process, 'close').then(([code, signal]) => {
      clearTimeout(this.limit);
      running.delete(this.process);
      return signal ?? code;
    });
  }

  /** Waits until a text has been printed, and returns all of it. */
  async says(text) {
    while (!this.out.includes(text)) {
      await Promise.race([once(this.process.stdout, 'data'), this.ended.then(() => {
        throw new Error(`ended without ${text}: ${this.out}${this.err}`);
      })]);
    }
    return this.out;
  }
}

module.exports = { Program };
