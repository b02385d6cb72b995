"""A server of a few lines with habits that servers have: odd.py HABIT, on descriptor 3.

plain      accepts and answers
deaf       never accepts
word       accepts, and says READY=1 when the file `word` is there
blocking   sets its socket to blocking mode
shutdown   calls shutdown(2) on its socket when it is told to end
own        listens on the port by another socket, too
deaf-next  accepts as slot's first worker, never as a later one
"""

import json
import os
import select
import signal
import socket
import sys
import time


def answer(client, remote):
    said = {"pid": os.getpid(), "slot": os.environ["NODE_APP_INSTANCE"], "remote": remote}
    said["fds"] = [os.environ.get(name) for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WEB_CONCURRENCY")]
    body = json.dumps(said).encode()
    client.settimeout(10)
    try:
        if client.recv(4096):
            client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    except OSError:
        pass
    client.close()


def say_ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        notify.send(b"READY=1")


def main():
    habit = sys.argv[1]
    listening = [socket.socket(fileno=3)]
    ends = []
    signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
    if habit == "deaf" or habit == "deaf-next" and os.environ["STICKY_LB_GENERATION"] != "0":
        while not ends:
            time.sleep(0.05)
        return
    if habit == "own":
        own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        own.bind(("0.0.0.0", int(os.environ["PORT"])))
        own.listen()
        listening.append(own)
    if habit == "blocking":
        listening[0].setblocking(True)
    has_said = habit != "word"
    while not ends:
        if not has_said and os.path.exists("word"):
            say_ready()
            has_said = True
        for each in select.select(listening, [], [], 0.05)[0]:
            try:
                client, (remote, *_) = each.accept()
            except BlockingIOError:
                continue
            answer(client, remote)
    if habit == "shutdown":
        listening[0].shutdown(socket.SHUT_RDWR)


main()
