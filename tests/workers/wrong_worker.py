"""A native worker that breaks one rule: `python3 wrong_worker.py FAULT`. With the fault `none` it keeps all of them.
tests/conformance.rs has the check that has to find each."""

import array
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import time

FAULT = sys.argv[1]
HEADER, RECORD, BATCH = struct.Struct("<2sBBHH"), struct.Struct("<QQQ24s24sQ"), 64
CONNECTIONS, PING, HELLO, READY, REFUSE, PONG = 0x01, 0x02, 0x81, 0x82, 0x83, 0x84
COMPLETED, REFUSED, DRAIN = 32, 40, 48
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok"

channel = socket.socket(fileno=int(os.environ["STICKY_LB_CHANNEL"]))
board = memoryview(mmap.mmap(int(os.environ["STICKY_LB_SCOREBOARD"]), 4096)).cast("Q")
lock = threading.Lock()
taken = 0
leaked = []
idle = set()


def say(kind, ids=()):
    channel.send(HEADER.pack(b"SL", 1, kind, len(ids), 0) + struct.pack(f"<{len(ids)}Q", *ids))


def count(counter, by):
    with lock:
        board[counter] += by


def serve(sock, data=b""):
    sock.setblocking(True)
    try:
        while True:
            while b"\r\n\r\n" not in data:
                if not data:
                    idle.add(sock)
                more = sock.recv(4096)
                idle.discard(sock)
                if not more:
                    return
                data += more
            last = b"Connection: close" in data
            data = b""
            if FAULT == "verbose":
                print("x" * 4000, flush=True)
            if FAULT == "prints-to-nobody":
                print("a request", flush=True)
            sock.sendall(ANSWER % (b"Connection: close\r\n" if last else b""))
            if last:
                return
    except OSError:
        pass  # The client has gone.
    finally:
        if FAULT == "leaks":
            leaked.append(os.dup(sock.fileno()))
        if FAULT == "resets":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def acknowledge(number):
    global taken
    taken += number
    if FAULT == "counts-twice" and taken % 50 == 0:
        number += 1
    if FAULT == "forgets" and taken % 50 == 0:
        number -= 1
    count(COMPLETED, number)


def start(sock, data=b""):
    if FAULT == "mute":
        leaked.append(sock)
    elif FAULT == "serial":
        serve(sock, data)
    else:
        threading.Thread(target=serve, args=(sock, data)).start()


def take_one(sock):
    """One after the other, with something before the acknowledgement."""
    data = b""
    if FAULT == "reads-first":
        sock.setblocking(True)
        data = sock.recv(4096)
    if FAULT == "looks-first":
        try:
            data = sock.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
    if FAULT == "greets-first" and taken > 0:
        sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    acknowledge(1)
    start(sock, data)


def take(records, sockets):
    if FAULT == "hello-twice":
        say(HELLO)
    missing = [record[0] for record in records[len(sockets) :]]
    if missing and FAULT == "dies-of-limit":
        raise OSError("too many open files")
    if missing and FAULT not in ("loses", "waits-at-limit"):
        say(REFUSE, missing)
        count(REFUSED, len(missing))
        count(COMPLETED, len(missing))
    if missing and FAULT == "loses":
        count(COMPLETED, len(missing))
    if FAULT == "asks-for-peer":
        [sock.getpeername() for sock in sockets]
    if FAULT.endswith("-first") or FAULT in ("counts-twice", "forgets"):
        for sock in sockets:
            take_one(sock)
        return
    acknowledge(len(sockets))
    if FAULT == "child-inherits" and sockets:
        subprocess.Popen(["sleep", "30"], close_fds=False)
    for sock in sockets:
        start(sock)


if FAULT == "silent":
    time.sleep(60)
if FAULT == "exits":
    sys.exit("no configuration")
if FAULT == "ready-before-hello":
    say(READY)
say(HELLO)
if FAULT == "leaves":
    nothing = subprocess.DEVNULL
    subprocess.Popen(["sleep", "30"], start_new_session=True, stdout=nothing, stderr=nothing)
if FAULT != "never-ready":
    say(READY)
flags = 0 if FAULT == "child-inherits" else socket.MSG_CMSG_CLOEXEC
while True:
    data, rights, *_ = channel.recvmsg(8 + BATCH * RECORD.size, socket.CMSG_SPACE(BATCH * 4), flags)
    if not data:
        break
    kind = HEADER.unpack_from(data)[2]
    if kind == PING and FAULT != "no-pong":
        say(PONG)
    elif kind == CONNECTIONS:
        numbers = array.array("i", b"".join(right[2] for right in rights))
        take(list(RECORD.iter_unpack(data[8:])), [socket.socket(fileno=fd) for fd in numbers])

if FAULT == "stays":
    time.sleep(60)
if FAULT == "exit-code":
    sys.exit(3)
if FAULT == "cuts":
    os._exit(0)
if not board[DRAIN]:
    if FAULT == "dies-with-primary":
        os._exit(0)
    if FAULT == "drains-at-once":
        for sock in list(idle):
            sock.shutdown(socket.SHUT_RD)
    if FAULT == "outlives":
        time.sleep(60)
    times = [int(os.environ[f"STICKY_LB_{name}_TIMEOUT"]) for name in ("ORPHAN", "KILL")]
    end = threading.Timer(sum(times) / 1000, os._exit, (0,))
    end.daemon = True
    end.start()
