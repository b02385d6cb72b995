"""A worker in Python, from its standard library alone: a thread and an HTTP server a connection.
Run it with: sticky-lb --workers 4 --port 3000 -- python3 examples/worker.py
The protocol stands, byte by byte, in src/protocol/message.rs and src/protocol/scoreboard.rs."""

import array
import http.server
import mmap
import os
import socket
import struct
import threading

HEADER, RECORD, BATCH = struct.Struct("<2sBBHH"), struct.Struct("<QQQ24s24sQ"), 64
CONNECTIONS, PING, HELLO, READY, REFUSE, PONG = 0x01, 0x02, 0x81, 0x82, 0x83, 0x84
NOW, COMPLETED, REFUSED, DRAIN = 0, 32, 40, 48  # counters on the scoreboard, in words of 8 bytes

channel = socket.socket(fileno=int(os.environ["STICKY_LB_CHANNEL"]))
board = memoryview(mmap.mmap(int(os.environ["STICKY_LB_SCOREBOARD"]), 4096)).cast("Q")
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"Hello {self.client_address[0]} from Python worker {os.getpid()}\n".encode()
        self.send_response_only(200)
        self.send_header("X-Worker-ID", str(os.getpid()))
        self.send_header("X-Worker-Slot", os.environ["STICKY_LB_SLOT"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def say(kind, ids=()):
    channel.send(HEADER.pack(b"SL", 1, kind, len(ids), 0) + struct.pack(f"<{len(ids)}Q", *ids))


def count(counter, by):
    with lock:
        board[counter] += by


def address(packed):
    family, port = struct.unpack_from("<BxH", packed)
    length, kind = (4, socket.AF_INET) if family == 4 else (16, socket.AF_INET6)
    return socket.inet_ntop(kind, packed[8 : 8 + length]), port


def serve(client, sock):
    try:
        sock.setblocking(True)
        Handler(sock, client, None)
    except OSError:
        pass  # The client has gone.
    finally:
        sock.close()
        count(NOW, -1)


def take(records, sockets):
    refused = [record[0] for record in records[len(sockets) :]]  # Their descriptors didn't arrive.
    if refused:
        say(REFUSE, refused)
        count(REFUSED, len(refused))
    count(COMPLETED, len(records))  # From here on they are this worker's, and may be read.
    for record, sock in zip(records, sockets):
        count(NOW, 1)
        threading.Thread(target=serve, args=(address(record[3]), sock)).start()


say(HELLO)
say(READY)
room = socket.CMSG_SPACE(BATCH * 4)
while True:
    data, rights, *_ = channel.recvmsg(8 + BATCH * RECORD.size, room, socket.MSG_CMSG_CLOEXEC)
    if not data:
        break  # End of file: no more come. The process ends with its last thread.
    _, _, kind, _, _ = HEADER.unpack_from(data)
    if kind == PING:
        say(PONG)  # From the loop that takes connections: it is what the watchdog watches.
    elif kind == CONNECTIONS:
        numbers = array.array("i", b"".join(right[2] for right in rights))
        take(list(RECORD.iter_unpack(data[8:])), [socket.socket(fileno=fd) for fd in numbers])

if not board[DRAIN]:  # No order to drain: the primary is gone. Serve the clients that are here, for a while.
    time = sum(int(os.environ[name]) for name in ("STICKY_LB_ORPHAN_TIMEOUT", "STICKY_LB_KILL_TIMEOUT"))
    end = threading.Timer(time / 1000, os._exit, (0,))
    end.daemon = True
    end.start()
