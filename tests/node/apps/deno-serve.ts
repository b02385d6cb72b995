// Deno's own server, which binds its port itself.
import process from 'node:process';
import { about, pause } from './about.cjs';

Deno.serve({ port: Number(process.env.PORT ?? 3000) }, async (request, info) => {
  const url = new URL(request.url);
  if (url.pathname === '/slow') await pause(url.searchParams.get('ms'));
  return Response.json(about(info.remoteAddr.hostname));
});
