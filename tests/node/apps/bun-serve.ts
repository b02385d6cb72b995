// Bun's own server, which binds its port itself.
import { about, pause } from './about.cjs';

const server = Bun.serve({
  port: process.env.PORT ?? 3000,
  async fetch(request, server) {
    const url = new URL(request.url);
    if (url.pathname === '/slow') await pause(url.searchParams.get('ms'));
    return Response.json(about(server.requestIP(request)?.address));
  },
});
console.log(`bun on ${server.port}`);
