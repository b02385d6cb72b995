"""A server on descriptor 3 that breaks one rule: `python3 wrong_server.py FAULT`. With the fault `none` it keeps all of
them. tests/conformance.rs has the check that has to find each."""

import errno
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

FAULT = sys.argv[1]
listener = socket.socket(fileno=3)
ends = []
leaked = []
lock = threading.Lock()
busy = 0


def answer(remote, last):
    body = json.dumps({"remote": "0.0.0.0" if FAULT == "wrong-address" else remote}).encode()
    closes = b"Connection: close\r\n" if last else b""
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (closes, len(body), body)


def requests(sock, remote):
    global busy
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = sock.recv(4096)
            if not more:
                return
            data += more
        with lock:
            busy += 1
        if data.startswith(b"GET /slow"):
            time.sleep(1)
        last = b"Connection: close" in data
        data = b""
        if FAULT == "verbose":
            print("x" * 4000, flush=True)
        sock.sendall(answer(remote, last))
        with lock:
            busy -= 1
        if last:
            return


def serve(sock, remote):
    sock.setblocking(True)
    try:
        requests(sock, remote)
    except OSError:
        pass  # The client has gone.
    if FAULT == "leaks":
        leaked.append(os.dup(sock.fileno()))
    if FAULT == "resets":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def take(sock, remote):
    if FAULT == "mute":
        leaked.append(sock)
    elif FAULT == "turns-away":
        sock.close()
    elif FAULT == "hangs-up":
        sock.shutdown(socket.SHUT_WR)
        leaked.append(sock)
    elif FAULT == "serial":
        serve(sock, remote)
    else:
        if FAULT == "asks-for-peer":
            sock.getpeername()
        if FAULT == "child-inherits":
            os.set_inheritable(sock.fileno(), True)
            subprocess.Popen(["sleep", "30"], close_fds=False)
        threading.Thread(target=serve, args=(sock, remote), daemon=True).start()


def accept(sockets):
    while not ends:
        for each in select.select(sockets, [], [], 0.05)[0]:
            try:
                sock, (remote, *_) = each.accept()
            except OSError as error:
                if error.errno == errno.EMFILE and FAULT == "dies-of-limit":
                    raise
                if error.errno == errno.EMFILE and FAULT == "stops-at-limit":
                    sockets = []
                continue
            take(sock, remote)


def say_ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        notify.send(b"READY=1")


def bind_port():
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    host = "127.0.0.1" if FAULT == "same-address" else "0.0.0.0"
    own.bind((host, int(os.environ["PORT"])))
    own.listen()
    return own


if FAULT == "exits":
    sys.exit("no configuration")
if FAULT == "deaf":
    time.sleep(60)
if FAULT == "empties-queue":
    while select.select([listener], [], [], 0)[0]:
        listener.accept()[0].close()
if FAULT == "ready-too-early":
    say_ready()
    time.sleep(7)
if FAULT != "stays":
    signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
else:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
sockets = [listener]
if FAULT in ("ignores-descriptor", "same-address"):
    sockets = [bind_port()]
if FAULT == "own-port":
    sockets.append(bind_port())
if FAULT == "two-processes":
    os.fork()
if FAULT == "leaves":
    nothing = subprocess.DEVNULL
    subprocess.Popen(["sleep", "30"], start_new_session=True, stdout=nothing, stderr=nothing)
if FAULT in ("none", "notifies"):
    say_ready()
if FAULT == "changes-options":
    listener.setblocking(True)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)

accept(sockets)

if FAULT == "cuts":
    os._exit(0)
if FAULT == "shuts-down":
    listener.shutdown(socket.SHUT_RDWR)
if FAULT == "exit-code":
    sys.exit(3)
for _ in range(80):
    if busy == 0:
        break
    time.sleep(0.05)
os._exit(0)
