"""Clients of a chat: rooms.py PORT socketio|websocket. Twelve addresses with two clients each join one room, each says
something, and all hear everybody. Prints the slots of each address, what was heard, and what was expected.
"""

import asyncio
import json
import sys

ADDRESSES = [f"127.0.60.{1 + n}" for n in range(12)]
EACH = 2
ROOM = "room"
TIMEOUT = 60


class SocketIo:
    """python-socketio's client: polling first, then the upgrade."""

    async def open(self, port, address, heard):
        import aiohttp
        import socketio

        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0)))
        self.client = socketio.AsyncClient(http_session=self.session, reconnection=False)
        hello = asyncio.get_running_loop().create_future()
        self.client.on("hello", lambda said: hello.done() or hello.set_result(said))
        self.client.on("said", lambda said: heard.append(said["text"]))
        await self.client.connect(f"http://127.0.0.1:{port}")
        said = await hello
        await self.client.emit("join", ROOM)
        return said

    async def say(self, text):
        await self.client.emit("say", (ROOM, text))

    def transport(self):
        return self.client.transport()

    async def close(self):
        await self.client.disconnect()
        await self.session.close()


class WebSocket:
    """A plain WebSocket whose room is its path."""

    async def open(self, port, address, heard):
        import websockets

        self.socket = await websockets.connect(f"ws://127.0.0.1:{port}/{ROOM}", local_addr=(address, 0))
        said = json.loads(await self.socket.recv())

        async def listen():
            async for text in self.socket:
                heard.append(json.loads(text)["text"])

        self.listening = asyncio.create_task(listen())
        return said

    async def say(self, text):
        await self.socket.send(text)

    def transport(self):
        return "websocket"

    async def close(self):
        await self.socket.close()
        await self.listening


async def main():
    port, kind = sys.argv[1:]
    slots, clients = {}, []
    for address in ADDRESSES * EACH:
        heard = []
        client = SocketIo() if kind == "socketio" else WebSocket()
        said = await client.open(port, address, heard)
        assert said["remote"] == address, f"{address} is seen as {said['remote']}"
        slots.setdefault(address, set()).add(said["slot"])
        clients.append((client, heard))
    # All have joined; that isn't acknowledged.
    await asyncio.sleep(1)
    for number, (client, _) in enumerate(clients):
        await client.say(f"text {number}")
    expected = sorted(f"text {number}" for number in range(len(clients)))
    for _ in range(100):
        if all(sorted(heard) == expected for _, heard in clients):
            break
        await asyncio.sleep(0.1)
    print(json.dumps({
        "slots": {address: sorted(found) for address, found in slots.items()},
        "complete": sum(sorted(heard) == expected for _, heard in clients),
        "clients": len(clients),
        "transports": sorted({client.transport() for client, _ in clients}),
    }))
    for client, _ in clients:
        await client.close()


asyncio.run(asyncio.wait_for(main(), TIMEOUT))
