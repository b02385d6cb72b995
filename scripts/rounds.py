"""Rounds of fresh connections to one front and another, and what they cost: for scripts/bench-node and bench-listen."""

import json
import math
import os
import pathlib
import resource
import select
import socket
import statistics
import time

from node_side import Failure

ADDRESSES = [f"127.5.{1 + index // 250}.{1 + index % 250}" for index in range(500)]
AT_ONCE = 64
RATE_SECONDS = 2
# Without progress for so long, what is still open has failed.
PATIENCE = 10
LEAST_SHARE = 0.99
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
IP_BIND_ADDRESS_NO_PORT = 24
# Student's t for 95 %, by degrees of freedom.
T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
     2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045]


class Load:
    """Fresh connections: so many at a time, or at a steady rate whatever the answers take."""

    def __init__(self, port, count, rate):
        self.target, self.count, self.rate = ("127.0.0.1", port), count, rate
        self.poll = select.epoll()
        self.open, self.times, self.failed = {}, [], {}
        self.begun = 0
        self.socket_error = (BlockingIOError, InterruptedError)

    def run(self):
        """Called in a process of its own."""
        started = progress = time.perf_counter()
        while len(self.times) + sum(self.failed.values()) < self.count:
            now = time.perf_counter()
            pause = self.begin(started, now)
            events = self.poll.poll(pause)
            if events:
                progress = now
            elif now - progress > PATIENCE:
                for number in list(self.open):
                    self.end(number, "timeout")
                break
            for number, event in events:
                self.advance(number, event)
        seconds = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.times.sort()
        at = lambda share: self.times[max(0, math.ceil(len(self.times) * share) - 1)] * 1e3 if self.times else 0
        return {
            "ok": len(self.times), "failed": self.failed, "seconds": seconds, "p50": at(0.5), "p99": at(0.99),
            "cpu": used.ru_utime + used.ru_stime,
        }

    def begin(self, started, now):
        """Opens those that are due; how long until the next one is."""
        if self.rate:
            while self.begun < self.count:
                due = started + self.begun / self.rate
                if due > now:
                    return min(due - now, 0.1)
                self.connect(due)
            return 0.1
        while self.begun < self.count and len(self.open) < AT_ONCE:
            self.connect(now)
        return 0.1

    def connect(self, due):
        address = ADDRESSES[self.begun % len(ADDRESSES)]
        self.begun += 1
        opened = socket.socket()
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        number = opened.fileno()
        self.open[number] = (opened, due)
        try:
            opened.bind((address, 0))
            opened.connect_ex(self.target)
            # On loopback the connection is there already.
            opened.send(REQUEST)
            self.poll.register(number, select.EPOLLIN)
        except self.socket_error:
            self.poll.register(number, select.EPOLLIN | select.EPOLLOUT)
        except OSError as error:
            self.poll.register(number, 0)
            self.end(number, error.strerror)

    def advance(self, number, event):
        if number not in self.open:
            return
        opened, due = self.open[number]
        try:
            if event & select.EPOLLOUT:
                opened.send(REQUEST)
                self.poll.modify(number, select.EPOLLIN)
            if event & ~select.EPOLLOUT:
                said = opened.recv(4096)
                if not said:
                    self.end(number, "empty")
                elif not said.startswith(b"HTTP/1.1 200"):
                    self.end(number, said[:12].decode("latin1"))
                else:
                    self.times.append(time.perf_counter() - due)
                    self.end(number, None)
        except self.socket_error:
            pass
        except OSError as error:
            self.end(number, error.strerror)

    def end(self, number, failure):
        opened, _ = self.open.pop(number)
        opened.close()
        if failure:
            self.failed[failure] = self.failed.get(failure, 0) + 1


def load(port, count, rate=None):
    """What a client in a process of its own has seen."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
            before = resource.getrusage(resource.RUSAGE_SELF)
            seen = Load(port, count, rate).run()
            seen["cpu"] -= before.ru_utime + before.ru_stime
            os.write(writer, json.dumps(seen).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    if not said:
        raise Failure("the client has failed")
    return json.loads(said)


def cpu(pid):
    """Seconds of a process, of all its threads and those that have ended."""
    return time.clock_gettime((~pid << 3) | 2)


def children(pid):
    found = []
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (thread / "children").read_text().split())
    return found


def pss(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0


class Front:
    """One of those that are compared, with the failures of its rounds."""

    def __init__(self, process):
        self.process, self.failed = process, {}

    def note(self, seen, count):
        """A few failures are reported; with many, figures say nothing."""
        for kind, times in seen["failed"].items():
            self.failed[kind] = self.failed.get(kind, 0) + times
        if seen["ok"] < count * LEAST_SHARE:
            raise Failure(f"{self.name}: only {seen['ok']} of {count} connections got an answer, {seen['failed']}")


def measure(front, count, rate, of="Node's"):
    """One round: so many connections as fast as they go, then some at a steady rate, half of the top rate `of` somebody."""
    ours, workers = front.front(), front.workers()
    before = [sum(map(cpu, pids)) for pids in (ours, workers)]
    seen = load(front.process.port, count)
    used = [sum(map(cpu, pids)) - earlier for pids, earlier in zip((ours, workers), before)]
    front.note(seen, count)
    figures = {
        "front CPU a connection, µs": used[0] / count * 1e6,
        "CPU of all processes a connection, µs": sum(used) / count * 1e6,
        "connections/s": count / seen["seconds"],
        "client's share of all CPU": seen["cpu"] / (seen["cpu"] + sum(used)),
        "cores busy": (seen["cpu"] + sum(used)) / seen["seconds"],
    }
    if rate:
        steady = load(front.process.port, int(rate * RATE_SECONDS), rate)
        front.note(steady, int(rate * RATE_SECONDS))
        figures[f"p50 at half of {of} top rate, ms"] = steady["p50"]
        figures[f"p99 at half of {of} top rate, ms"] = steady["p99"]
    return figures


def interval(ratios):
    """Geometric mean and its 95 % interval."""
    logs = [math.log(ratio) for ratio in ratios]
    mean, count = statistics.fmean(logs), len(logs)
    half = (T[count - 2] if count - 2 < len(T) else 2.0) * statistics.stdev(logs) / math.sqrt(count)
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)
