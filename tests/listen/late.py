"""A client behind a slow line: late.py PORT. Its last step of the handshake comes when a line comes on standard input.

It is a few packets on a TUN device of its own, 10.9.0.1 to the kernel, 10.9.0.2 to itself; to be run in a network namespace.
It prints `asked` when the kernel has answered its SYN, and then what it was answered, as JSON.
"""

import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys

SERVER, CLIENT, CLIENT_PORT = "10.9.0.1", "10.9.0.2", 40000
SYN, PSH, ACK, FIN, RST = 0x02, 0x08, 0x10, 0x01, 0x04
TIMEOUT = 20


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packet(port, sequence, acknowledged, flags, data=b""):
    addresses = socket.inet_aton(CLIENT) + socket.inet_aton(SERVER)

    def tcp(its_sum):
        head = struct.pack("!HHIIBBHHH", CLIENT_PORT, port, sequence, acknowledged, 5 << 4, flags, 65535, its_sum, 0)
        return head + data

    segment = tcp(checksum(addresses + struct.pack("!HH", socket.IPPROTO_TCP, 20 + len(data)) + tcp(0)))

    def ip(its_sum):
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, socket.IPPROTO_TCP, its_sum) + addresses

    return ip(checksum(ip(0))) + segment


def receive(tun):
    """Sequence number, flags and data of the next segment."""
    while True:
        if not select.select([tun], [], [], TIMEOUT)[0]:
            raise SystemExit("no packet")
        got = os.read(tun, 65535)
        if got[0] >> 4 == 4 and got[9] == socket.IPPROTO_TCP:
            tcp = got[(got[0] & 15) * 4:]
            return struct.unpack("!I", tcp[4:8])[0], tcp[13], tcp[(tcp[12] >> 4) * 4:]


def main():
    port = int(sys.argv[1])
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH", b"late0", 0x1001))
    for words in (["addr", "add", f"{SERVER}/24", "dev", "late0"], ["link", "set", "late0", "up"]):
        subprocess.run(["ip", *words], check=True)
    os.write(tun, packet(port, 1000, 0, SYN))
    sequence, flags, _ = receive(tun)
    assert flags & (SYN | ACK) == SYN | ACK, f"flags {flags:#x}"
    print("asked", flush=True)
    sys.stdin.readline()
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    os.write(tun, packet(port, 1001, sequence + 1, ACK))
    os.write(tun, packet(port, 1001, sequence + 1, ACK | PSH, request))
    answer, expected = b"", sequence + 1
    while True:
        number, flags, data = receive(tun)
        if flags & RST:
            raise SystemExit("the connection was reset")
        if number == expected:
            answer += data
            expected += len(data) + bool(flags & FIN)
            os.write(tun, packet(port, 1001 + len(request), expected, ACK))
        if flags & FIN and not flags & SYN:
            break
    print(json.dumps(json.loads(answer.split(b"\r\n\r\n", 1)[1])), flush=True)


main()
