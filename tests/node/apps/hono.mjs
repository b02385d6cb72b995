// Hono on Node's http server.
import { serve } from '@hono/node-server';
import { getConnInfo } from '@hono/node-server/conninfo';
import { Hono } from 'hono';
import { about, pause } from './about.cjs';

const app = new Hono();

app.get('/', (context) => context.json(about(getConnInfo(context).remote.address)));

app.get('/slow', async (context) => {
  await pause(context.req.query('ms'));
  return context.json(about(getConnInfo(context).remote.address));
});

serve({ fetch: app.fetch, port: Number(process.env.PORT || 3000) }, (address) => {
  console.log(`hono on ${address.port}`);
});
