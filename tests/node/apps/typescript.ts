// TypeScript that Node 22 and later, Bun and Deno run as it is; types alone, nothing that has to be compiled.
import http from 'node:http';
import process from 'node:process';
import { about, pause } from './about.cjs';

interface Answer {
  pid: number;
  slot?: string;
  remote?: string;
  version: string;
}

const port: number = Number(process.env.PORT ?? 3000);

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url ?? '/', 'http://localhost');
  if (url.pathname === '/slow') await pause(url.searchParams.get('ms'));
  const answer: Answer = about(request.socket.remoteAddress);
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify(answer));
});

server.listen({ port }, () => console.log(`typescript on ${port}`));
