"""A chat with rooms: Django Channels.

sticky-lb --workers 4 --port 8000 -- daphne --fd {fd} channels_app:app
"""

import json
import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

REDIS_URL = os.environ.get("REDIS_URL")
LAYER = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
if REDIS_URL:
    LAYER = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
settings.configure(
    ALLOWED_HOSTS=["*"], SECRET_KEY=os.environ.get("SECRET_KEY", "for an example"), CHANNEL_LAYERS={"default": LAYER})
django.setup()

SLOT = os.environ.get("NODE_APP_INSTANCE")


class Chat(AsyncWebsocketConsumer):
    """A WebSocket at /ROOM: each text goes to all in the room."""

    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()
        await self.send(json.dumps({"slot": SLOT, "pid": os.getpid(), "remote": self.scope["client"][0]}))

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send(self.room, {"type": "said", "text": text_data, "by": SLOT})

    async def said(self, event):
        await self.send(json.dumps({"text": event["text"], "by": event["by"]}))


app = ProtocolTypeRouter({"websocket": URLRouter([path("<str:room>", Chat.as_asgi())])})
