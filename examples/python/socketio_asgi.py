"""A chat with rooms: python-socketio as an ASGI application.

sticky-lb --workers 4 --port 8000 -- uvicorn --fd {fd} socketio_asgi:app
"""

import os

import socketio

REDIS_URL = os.environ.get("REDIS_URL")
# Without it, rooms end at the worker.
manager = socketio.AsyncRedisManager(REDIS_URL) if REDIS_URL else None
server = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
app = socketio.ASGIApp(server)

SLOT = os.environ.get("NODE_APP_INSTANCE")


@server.event
async def connect(sid, environ):
    # Not REMOTE_ADDR, which is always 127.0.0.1 here.
    await server.emit("hello", {"slot": SLOT, "pid": os.getpid(), "remote": environ["asgi.scope"]["client"][0]}, to=sid)


@server.event
async def join(sid, room):
    await server.enter_room(sid, room)


@server.event
async def say(sid, room, text):
    await server.emit("said", {"text": text, "by": SLOT}, room=room)
