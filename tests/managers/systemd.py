"""A stand-in for a service manager that keeps descriptors (systemd with FileDescriptorStoreMax=,
Restart=on-abnormal and KillMode=process), for the tests. Usage: systemd.py COMMAND...

It is one program with what it runs: signals are passed on, and the exit code is the command's. Of the
protocol (sd_notify(3), sd_listen_fds(3)) it does what the descriptor store takes, and writes what it
hears to `heard`.
"""

import ctypes
import fcntl
import os
import select
import signal
import socket
import sys

PR_SET_CHILD_SUBREAPER = 36
# sd_listen_fds(3)
FIRST = 3
# Above all that a service gets.
BEYOND = 2000


class Manager:
    def __init__(self, command):
        self.command = command
        self.address = os.path.abspath("manager")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.setblocking(False)
        self.heard = open("heard", "w", buffering=1)
        self.kept = []
        self.service = self.start()

    def start(self):
        pid = os.fork()
        if pid:
            return pid
        # Nothing else that is open here is inherited.
        for number, (_, descriptor) in enumerate(self.kept, FIRST):
            os.dup2(descriptor, number, inheritable=True)
        environment = dict(os.environ, NOTIFY_SOCKET=self.address, FDSTORE="4096")
        if self.kept:
            environment["LISTEN_PID"] = str(os.getpid())
            environment["LISTEN_FDS"] = str(len(self.kept))
            environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.kept)
        os.execvpe(self.command[0], self.command, environment)

    def hear(self):
        """Takes all messages."""
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 16)
            except BlockingIOError:
                return
            text = message.decode()
            self.heard.write(text.strip().replace("\n", " ") + "\n")
            fields = dict(line.split("=", 1) for line in text.splitlines())
            name = fields.get("FDNAME")
            if fields.get("FDSTORE") == "1":
                copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, BEYOND) for fd in descriptors]
                self.kept.extend((name, copy) for copy in copies)
            elif fields.get("FDSTOREREMOVE") == "1":
                for entry in [entry for entry in self.kept if entry[0] == name]:
                    self.kept.remove(entry)
                    os.close(entry[1])
            for descriptor in descriptors:
                os.close(descriptor)

    def bury(self):
        """Takes the status of every child; a service that was killed is started again."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid == self.service:
                if not os.WIFSIGNALED(status):
                    self.heard.write(f"left {len(self.kept)}\n")
                    sys.exit(os.waitstatus_to_exitcode(status))
                self.service = self.start()


def main():
    # Workers of a service that was killed are this process's, as they would be systemd's.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakes, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    manager = Manager(sys.argv[1:])
    for number in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2]:
        signal.signal(number, lambda number, _: os.kill(manager.service, number))
    while True:
        ready, _, _ = select.select([manager.socket, wakes], [], [])
        if wakes in ready:
            os.read(wakes, 4096)
        # What a service has said before its end comes first.
        manager.hear()
        manager.bury()


main()
