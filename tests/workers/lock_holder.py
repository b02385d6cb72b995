"""A worker that holds the lock of its client's socket: a thread is inside send(2), with memory that comes late. Says
"holds" as soon as it does. Needs root, for userfaultfd(2).

Its role is its argument: it `offers` the session at once, or as it `leaves`. Two other roles take such a session from
it: one `dies` without a word, one `protects` the session, and dies. Both answer their clients."""

import array
import ctypes
import fcntl
import mmap
import os
import select
import socket
import struct
import sys
import threading
import time

HELD = 30.0  # seconds, far longer than anybody may wait
PAGE = 4096
USERFAULTFD = {"x86_64": 323, "aarch64": 282}[os.uname().machine]
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04

HEADER, RECORD = struct.Struct("<2sBBHH"), 80
CONNECTIONS, PING, SESSION, DRAIN, RESYNC = 0x01, 0x02, 0x03, 0x04, 0x0A
HELLO, READY, PONG, OFFER, SESSIONS, RESYNC_DONE = 0x81, 0x82, 0x84, 0x86, 0x87, 0x8C
CHECKPOINT, PROTECT = 0x8D, 0x8E
COMPLETED = 32  # on the scoreboard, in words of 8 bytes

libc = ctypes.CDLL(None, use_errno=True)
channel = socket.socket(fileno=int(os.environ["STICKY_LB_CHANNEL"]))
board = memoryview(mmap.mmap(int(os.environ["STICKY_LB_SCOREBOARD"]), 4096)).cast("Q")


def say(kind, body=b"", descriptors=()):
    count = 1 if body else 0
    socket.send_fds(channel, [HEADER.pack(b"SL", 1, kind, count, 0) + body], list(descriptors))


def hold(descriptor):
    """Holds the lock from its return on, for its time."""
    faults = libc.syscall(USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if faults < 0:
        sys.exit(f"userfaultfd: {os.strerror(ctypes.get_errno())}: run this as root")
    fcntl.ioctl(faults, UFFDIO_API, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))
    memory = mmap.mmap(-1, PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(faults, UFFDIO_REGISTER, bytearray(struct.pack("QQQQ", address, PAGE, 1, 0)))
    send = lambda: libc.send(descriptor, ctypes.c_void_p(address), PAGE, 0)
    threading.Thread(target=send, daemon=True).start()
    select.select([faults], [], [])
    print("holds", file=sys.stderr, flush=True)

    def let_go(_memory=memory):
        time.sleep(HELD)
        fcntl.ioctl(faults, UFFDIO_ZEROPAGE, bytearray(struct.pack("QQQQ", address, PAGE, 0, 0)))

    threading.Thread(target=let_go).start()


def offer(record, descriptor):
    say(OFFER, record, [descriptor])


def protect(record, descriptor):
    checkpoint = os.memfd_create("checkpoint", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(checkpoint, 16 * PAGE)
    fcntl.fcntl(checkpoint, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    say(CHECKPOINT, b"", [checkpoint])
    say(PROTECT, record + struct.pack("<Q", 1), [descriptor])


def take_client(record, descriptor):
    board[COMPLETED] += 1
    if role in ("dies", "protects"):
        client = socket.socket(fileno=descriptor)
        client.setblocking(True)
        client.recv(4096)
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        return client.close()
    hold(descriptor)
    if role == "offers":
        offer(record, descriptor)
    held.append((record, descriptor))


def take_session(record, descriptor):
    # Each question about its socket waits, that of socket.socket() as well.
    if role == "protects":
        board[COMPLETED] += 1
        protect(record, descriptor)
    os._exit(1)


role, held = sys.argv[1], []
for kind in HELLO, SESSIONS, READY:
    say(kind)
while True:
    data, descriptors, *_ = socket.recv_fds(channel, 20_000, 64)
    if not data:
        break
    kind = HEADER.unpack_from(data)[2]
    record = data[HEADER.size :][:RECORD]
    if kind == PING:
        say(PONG)
    elif kind == RESYNC:
        say(RESYNC_DONE, data[HEADER.size :])
    elif kind == CONNECTIONS:
        take_client(record, descriptors[0])
    elif kind == SESSION:
        take_session(record, descriptors[0])
    elif kind == DRAIN:
        for one in held:
            offer(*one)
