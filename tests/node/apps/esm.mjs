// A module that listens after something it awaits, and goes on when it listens.
import { once } from 'node:events';
import { createServer } from 'node:http';
import process from 'node:process';
import { setTimeout } from 'node:timers/promises';
import { answer } from './about.cjs';

await setTimeout(50);
const server = createServer(answer);
server.listen(process.env.PORT ?? 3000);
await once(server, 'listening');
console.log(`esm on ${server.address().port}`);
