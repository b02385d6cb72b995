"""The plainest ASGI application: one answer, and a WebSocket that echoes."""

import asyncio
import urllib.parse

from about import about


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    if scope["path"] == "/slow":
        query = urllib.parse.parse_qs(scope["query_string"].decode())
        await asyncio.sleep(min(int(query["ms"][0]), 10_000) / 1000)
    body = about(scope["client"][0])
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
