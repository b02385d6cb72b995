#!/usr/bin/env bash
# python-engineio 4.15.1 (python-socketio 5.18.1) under uvicorn 0.54.0 as an ASGI application: REMOTE_ADDR in the
# environment that `connect` gets is 127.0.0.1 for every client.
#
# A good guess: `environ` is a WSGI environment made of the ASGI scope, path, query and headers are in it, so REMOTE_ADDR is
# the client's address, as it is under the package's WSGI and eventlet drivers and in Flask-SocketIO. It is a constant
# there, beside a REMOTE_PORT and SERVER_NAME that are none of the connection's either. Limits and bans by
# environ['REMOTE_ADDR'] hit all clients or none. The address is in environ['asgi.scope']['client'].
#
# Output seen: REMOTE_ADDR 127.0.0.1, scope 127.0.0.77
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check python-engineio==4.15.1 python-socketio==5.18.1 uvicorn==0.54.0
cat > "$folder/app.py" <<'PY'
import socketio

server = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(server)


@server.event
async def connect(sid, environ):
    print("REMOTE_ADDR", environ["REMOTE_ADDR"] + ",", "scope", environ["asgi.scope"]["client"][0], flush=True)
PY
cat > "$folder/client.py" <<'PY'
import http.client
import json
import sys
import time

source = ("127.0.0.77", 0)


def turn(path, body=None):
    opened = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), source_address=source, timeout=10)
    opened.request("GET" if body is None else "POST", path, body=body)
    return opened.getresponse().read().decode()


for _ in range(100):
    try:
        first = turn("/socket.io/?EIO=4&transport=polling")
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
session = "/socket.io/?EIO=4&transport=polling&sid=" + json.loads(first[1:])["sid"]
turn(session, "40")
turn(session)
PY
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(cd "$folder" && exec venv/bin/uvicorn --port "$port" --log-level warning app:app > said) &
"$folder/venv/bin/python" "$folder/client.py" "$port"
cat "$folder/said"
grep -qx 'REMOTE_ADDR 127.0.0.1, scope 127.0.0.77' "$folder/said"
