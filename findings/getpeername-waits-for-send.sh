#!/usr/bin/env bash
# getpeername(2) of a TCP socket waits while another thread, or another process with a copy of the socket, is
# inside send(2), as long as the sender's memory is being paged in. So do getsockname(2), TCP_INFO and FIONREAD;
# SO_LINGER, SO_COOKIE and SIOCOUTQ don't.
#
# The guess: the addresses of a connected socket never change, so the calls that copy them out wait for nothing;
# only what reads the connection's counters (TCP_INFO) may take its lock. Wrong for the addresses: they are read
# under the socket's lock, too (inet_getname), which send(2) holds while it copies from the caller's memory. A
# process that passes sockets on can't ask them for their addresses without depending on those that have them.
#
# Seen with Linux 6.18 and Python 3.11: each of the first four waits for the 300 ms that the page takes,
# each of the others less than 1 ms. Needs the right to use userfaultfd(2) for faults in the kernel (root, or
# vm.unprivileged_userfaultfd=1). Everything is on loopback and ends after some seconds.
set -euo pipefail
uname -sr
python3 --version
exec python3 - <<'PYTHON'
import ctypes, fcntl, mmap, os, select, socket, struct, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
PAGE = 4096
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
HELD = 0.3

def seconds_of(ask):
    """How long a question takes while another thread sends from a page that comes after HELD seconds."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    copy = server.dup()
    faults = libc.syscall(323, os.O_CLOEXEC | os.O_NONBLOCK)
    if faults < 0:
        sys.exit(f"userfaultfd: {os.strerror(ctypes.get_errno())}: run this as root")
    fcntl.ioctl(faults, UFFDIO_API, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))
    memory = mmap.mmap(-1, PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(faults, UFFDIO_REGISTER, bytearray(struct.pack("QQQQ", address, PAGE, 1, 0)))
    sender = threading.Thread(target=lambda: libc.send(server.fileno(), ctypes.c_void_p(address), PAGE, 0))
    sender.start()
    while not select.select([faults], [], [], 0)[0]:
        time.sleep(0.001)
    def come():
        time.sleep(HELD)
        fcntl.ioctl(faults, UFFDIO_ZEROPAGE, bytearray(struct.pack("QQQQ", address, PAGE, 0, 0)))
    page = threading.Thread(target=come)
    page.start()
    start = time.monotonic()
    ask(copy)
    took = time.monotonic() - start
    page.join(); sender.join()
    os.close(faults)
    return took

def out(size):
    return ctypes.create_string_buffer(size), ctypes.byref(ctypes.c_int(size))

# By way of ctypes, which holds up no other thread of Python meanwhile.
def option(level, name, size):
    return lambda it: libc.getsockopt(it.fileno(), level, name, *out(size))

def request(number):
    return lambda it: libc.ioctl(it.fileno(), number, *out(4)[:1])

SIOCINQ, SIOCOUTQ, SO_COOKIE, TCP_INFO = 0x541B, 0x5411, 57, 11
waits = {
    "getpeername": lambda it: libc.getpeername(it.fileno(), *out(128)),
    "getsockname": lambda it: libc.getsockname(it.fileno(), *out(128)),
    "TCP_INFO": option(socket.IPPROTO_TCP, TCP_INFO, 104),
    "FIONREAD": request(SIOCINQ),
}
does_not = {
    "SO_LINGER": option(socket.SOL_SOCKET, socket.SO_LINGER, 8),
    "SO_COOKIE": option(socket.SOL_SOCKET, SO_COOKIE, 8),
    "SIOCOUTQ": request(SIOCOUTQ),
}
failed = False
for questions, expected in ((waits, True), (does_not, False)):
    for name, ask in questions.items():
        took = seconds_of(ask)
        waited = took > HELD / 2
        failed |= waited != expected
        print(f"{name:<12} {took * 1000:6.1f} ms{'' if waited == expected else '   not as stated'}")
sys.exit(failed)
PYTHON
