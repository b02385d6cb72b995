"""What scripts/prove-node, scripts/prove-listen and scripts/bench-node have in common: runtimes, programs, a primary, its clients."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or HERE / "target").resolve()
TOOLS = TARGET / "tools" / "node-apps"
PROGRAMS = HERE / "tests" / "node"
STOP_TIMEOUT = 20
START_TIMEOUT = 75
ANSWER_TIMEOUT = 20
POLL = 0.02


class Failure(Exception):
    """A promise that doesn't hold, or something that keeps us from looking."""


def binary(given):
    path = pathlib.Path(given) if given else TARGET / "release" / "sticky-lb"
    if not path.is_file():
        sys.exit(f"{path} is missing: cargo build --locked --release, or name the binary")
    if not TOOLS.is_dir():
        sys.exit(f"{TOOLS} is missing: scripts/test installs it")
    link = PROGRAMS / "node_modules"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(TOOLS / "node_modules")
    return str(path.resolve())


def runtime(name):
    """The command of a runtime: node20 … node26, bun, deno."""
    modules = TOOLS / "node_modules"
    if name == "deno":
        return [str(modules / "deno" / "deno"), "run", "-A", "--unstable-detect-cjs"]
    if name == "bun":
        return [str(modules / "bun" / "bin" / "bun")]
    return [str(modules / name / "bin" / "node")]


def environment(**more):
    tls = {"TLS_KEY": str(TOOLS / "tls" / "key.pem"), "TLS_CERT": str(TOOLS / "tls" / "cert.pem")}
    # An app says on its own what it runs in.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NODE_", "STICKY_LB_"))}
    return inherited | tls | more


def free_port():
    with socket.socket(socket.AF_INET6) as probe:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind(("::", 0))
        return probe.getsockname()[1]


def eventually(what, look, timeout=START_TIMEOUT):
    """The first true answer; an exception of `look` is its own."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(POLL)
    raise Failure(f"not within {timeout} s: {what}")


class Process:
    """A process that we have started, with its output in a file."""

    def __init__(self, command, log, folder=PROGRAMS, **more):
        self.log = pathlib.Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as output:
            self.child = subprocess.Popen(
                command, cwd=folder, env=environment(**more), stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )
        self.pid = self.child.pid

    def text(self):
        return self.log.read_text(errors="replace")

    def running(self):
        if self.child.poll() is not None:
            raise Failure(f"the primary has ended ({self.child.returncode}): {self.last_words()}")

    def last_words(self):
        lines = self.text().strip().splitlines()
        return " / ".join(lines[-3:])[-400:]

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
        try:
            self.child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            # All of its session is ours.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.child.wait()


class StickyLb(Process):
    """sticky-lb with a program as its workers. `keeper` is the process that was started, `primary` its child."""

    def __init__(self, program, command, log, workers, options=(), folder=PROGRAMS):
        self.program = program
        self.port = free_port()
        self.control = f"/tmp/prove-node-{os.getpid()}-{self.port}.sock"
        super().__init__(
            [program, "--port", str(self.port), "--workers", str(workers), "--control", self.control]
            + [*options, "--", *command],
            log, folder,
        )
        self.workers_wanted = workers
        try:
            self.wait_until_serving()
        except Failure:
            self.stop()
            raise

    def command(self, *words, timeout=120):
        """The lines of JSON that a command of ours answers; None if there is no primary to ask."""
        done = subprocess.run(
            [self.program, *words, "--json", "--control", self.control],
            capture_output=True, text=True, timeout=timeout,
        )
        # Progress, if there is any, is no JSON.
        said = done.stdout + done.stderr
        lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        if done.returncode != 0:
            if "cannot reach" in said or "closed the" in said:
                return None
            raise Failure(f"sticky-lb {' '.join(words)}: {said.strip()[-300:]}")
        return lines

    def status(self):
        self.running()
        found = self.command("status")
        return found[0] if found else None

    def wait_until_serving(self, what="all workers serve"):
        def look():
            status = self.status()
            return status if status and status["serving"] == self.workers_wanted else None

        return eventually(what, look)

    def serving(self):
        """The process of each slot."""
        return {line["slot"]: line["pid"] for line in self.command("workers") or [] if line["state"] == "serving"}

    def restart(self):
        answered = self.command("reload")
        if answered is None:
            raise Failure("reload: no primary answers")

    def scale(self, workers):
        if self.command("scale", str(workers)) is None:
            raise Failure("scale: no primary answers")
        self.workers_wanted = workers
        self.wait_until_serving(f"{workers} workers serve")

    def primary_pid(self):
        return eventually("a primary that answers", self.status)["primary_pid"]


class Tutorial(Process):
    """Node's own cluster around the same program, or any program of Node's that listens on PORT."""

    def __init__(self, command, log, **more):
        self.port = free_port()
        super().__init__(command, log, PORT=str(self.port), **more)
        try:
            eventually("an answer of Node's cluster", self.answers)
        except Failure:
            self.stop()
            raise
        self.restarts = 0

    def answers(self):
        self.running()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def restart(self):
        self.restarts += 1
        os.kill(self.pid, signal.SIGHUP)
        # A line each, beside those that the program itself prints.
        def is_done():
            self.running()
            return self.text().count("restarted\n") >= self.restarts

        eventually("the end of a rolling restart of Node's cluster", is_done, 120)


class Client:
    """A program under tests/node/clients, which runs until it is told to finish and then prints what it has seen."""

    def __init__(self, script, port, *arguments):
        command = [*runtime("node24"), str(PROGRAMS / "clients" / script), f"127.0.0.1:{port}"]
        self.script = script
        self.child = subprocess.Popen(
            [*command, "--attended", "--seconds", "600", *map(str, arguments)],
            cwd=PROGRAMS, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )

    def wait_until_ready(self):
        """Its first answer."""
        line = self.child.stdout.readline()
        if line.strip() != "ready":
            raise Failure(f"{self.script}: no answer, {line.strip()[:300]}")

    def finish(self):
        self.child.stdin.close()
        said = self.child.stdout.read().strip().splitlines()
        self.child.wait(60)
        if not said:
            raise Failure(f"{self.script} ended without a word ({self.child.returncode})")
        return json.loads(said[-1])

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


def connection(port, address, tls):
    """A connection that is not yet open, from an address of its own."""
    source = (address, 0)
    if tls:
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=ANSWER_TIMEOUT, source_address=source, context=context)
    return http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT, source_address=source)


def get(opened, path="/", body=None, keep=False):
    """Status and text of an answer."""
    headers = {} if keep else {"Connection": "close"}
    opened.request("GET" if body is None else "POST", path, body=body, headers=headers)
    answer = opened.getresponse()
    return answer.status, answer.read().decode()


def plain(address):
    return address.removeprefix("::ffff:")
