"""A chat with rooms: Flask-SocketIO on threads.

sticky-lb --workers 4 --port 8000 -- gunicorn -b fd://{fd} -k gthread --threads 100 --no-control-socket flask_socketio_app:app
"""

import os

from flask import Flask, request
from flask_socketio import SocketIO, emit, join_room

app = Flask(__name__)
# Without Redis, rooms end at the worker.
server = SocketIO(app, async_mode="threading", message_queue=os.environ.get("REDIS_URL"))

SLOT = os.environ.get("NODE_APP_INSTANCE")


@server.event
def connect():
    emit("hello", {"slot": SLOT, "pid": os.getpid(), "remote": request.remote_addr})


@server.event
def join(room):
    join_room(room)


@server.event
def say(room, text):
    emit("said", {"text": text, "by": SLOT}, to=room)
