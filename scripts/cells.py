"""Promises to programs as workers, one program after another: what scripts/prove-node and scripts/prove-listen share."""

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import signal
import sys
import time

from node_side import (
    PROGRAMS, TARGET, Client, Failure, StickyLb, Tutorial, binary, connection, eventually, get, plain, runtime,
)

WORKERS = 4
ADDRESSES = 200
ROUNDS = 3
AT_ONCE = 24
KEPT = 20
AFTER_A_KILL = 24
# Node's own cluster waits for each old worker, and kept connections hold it for its 5 s: a share of the restarts does.
TUTORIAL_SHARE = 4
# The time that a rolling restart watches each new worker is short, so that more of them happen under the same load;
# so is the time of old workers, whose clients ask for as long as they may. Clients of a slot without a worker wait for
# the next one, however slowly it starts.
OPTIONS = ["--min-uptime", "100ms", "--slot-wait", "15s", "--drain-timeout", "3s", "--kill-timeout", "1s",
           "--listen-timeout", "60s"]

POLLING = "/socket.io/?EIO=4&transport=polling"
HELLO = re.compile(r'42\["hello",(\{.*?\})\]')


class App:
    """A program, and how it is run and asked."""

    # Where its files are.
    folder = PROGRAMS
    # Whether clients of a slot whose worker was killed wait for its successor, or go to others until then.
    waits = True

    def __init__(self, file, flags=(), options=(), path="/", tls=False, alone=True, talkers=()):
        self.file, self.flags, self.options = file, list(flags), list(options)
        self.path, self.tls = path, tls
        # Whether Node's own cluster can run it.
        self.alone = alone
        # Clients that talk beside the others: script and arguments.
        self.talkers = list(talkers)

    def command(self, name):
        """As it is run on this runtime."""
        return [*runtime(name), *self.flags, self.file]

    def ask(self, port, address, kept=None):
        """What the program says about itself and its client, `{pid, slot, remote}`."""
        opened = kept or connection(port, address, self.tls)
        try:
            if self.path != POLLING:
                status, text = get(opened, keep=kept is not None)
                if status != 200:
                    raise Failure(f"status {status}")
                return json.loads(text)
            return self.hello(opened, port, address, kept)
        finally:
            if kept is None:
                opened.close()

    def hello(self, opened, port, address, kept):
        """Socket.IO's by polling: three requests, each on a connection of its own unless one is kept."""
        def turn(path, body=None):
            nonlocal opened
            status, text = get(opened, path, body, keep=kept is not None)
            if status != 200:
                raise Failure(f"status {status}: {text[:80]}")
            if kept is None:
                opened.close()
                opened = connection(port, address, self.tls)
            return text

        session = f"{POLLING}&sid={json.loads(turn(POLLING)[1:])['sid']}"
        turn(session, "40")
        # Its answer and what the program says first may come one after the other.
        found = HELLO.search(turn(session)) or HELLO.search(turn(session))
        if not found:
            raise Failure("no hello")
        turn(session, "1")
        return json.loads(found[1])


def addresses(count=ADDRESSES, net="127.0.40"):
    return [f"{net}.{1 + index}" for index in range(count)]


class Cell:
    """One program on one runtime."""

    def __init__(self, program, title, name, app, settings):
        self.title, self.name, self.app, self.settings = title, name, app, settings
        self.figures, self.failed = {}, []
        self.pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
        self.program = program
        self.front = None
        self.slots = {}

    def log(self, part):
        return self.settings.logs / f"{self.title.replace(':', '-')}{part}.log"

    def fail(self, column, reason):
        self.failed.append(f"{column}: {reason}")
        self.figures[column] = "FAILED"

    def run(self):
        started = time.monotonic()
        try:
            self.front = StickyLb(
                self.program, self.app.command(self.name), self.log(""), WORKERS, OPTIONS + self.app.options,
                self.app.folder)
            self.figures["starts"] = f"{time.monotonic() - started:.1f} s"
        except Failure as reason:
            self.fail("starts", reason)
            self.figures["seconds"] = round(time.monotonic() - started)
            return
        try:
            columns = (self.sticks, self.kills, self.primary, self.upgrade, self.scales, self.restarts)
            for column in (self.sticks, self.restarted) if self.settings.brief else columns:
                say(f"{self.title}: {column.__name__}")
                try:
                    column()
                except (Failure, OSError, ValueError) as reason:
                    self.fail(column.__name__, f"{type(reason).__name__}: {reason}")
                # Without answers all else takes its time and says nothing.
                if self.front.child.poll() is not None or not self.slots:
                    break
            status = self.front.child.poll() is None and self.front.status() or {}
            for name in ("lost", "redispatched", "refused", "stalls"):
                self.figures[name] = status.get(name)
        except Failure as reason:
            self.failed.append(str(reason))
        finally:
            self.front.stop()
            self.pool.shutdown()
        is_short = self.settings.quick or self.settings.brief
        if not is_short and not self.settings.no_tutorial and self.app.alone and self.name.startswith("node"):
            say(f"{self.title}: Node's own cluster")
            try:
                self.tutorial()
            except (Failure, OSError, ValueError) as reason:
                self.figures["tutorial"] = f"failed: {reason}"
        self.figures["seconds"] = round(time.monotonic() - started)

    def ask_all(self, who):
        """Answers by address, and what has failed."""
        def one(address):
            try:
                return address, self.app.ask(self.front.port, address), None
            except Exception as reason:  # Whatever it is, that client has no answer.
                return address, None, f"{type(reason).__name__} {reason}"

        answers, failed = [], []
        for address, said, reason in self.pool.map(one, who):
            if reason:
                failed.append(f"{address}: {reason}")
            else:
                answers.append((address, said))
        return answers, failed

    def check(self, who, may_move=False):
        """All are answered, see themselves, and are where they were: how many, and what is wrong."""
        answers, failed = self.ask_all(who)
        reasons = []
        if failed:
            reasons.append(f"{len(failed)} of {len(who)} clients failed, e.g. {failed[0]}")
        wrong = [address for address, said in answers if plain(said["remote"]) != address]
        if wrong:
            reasons.append(f"{len(wrong)} of {len(who)} seen with another address, e.g. {wrong[0]}")
        if may_move:
            return len(answers), reasons
        moved = [address for address, said in answers if self.slots.setdefault(address, said["slot"]) != said["slot"]]
        if moved:
            example = f"{moved[0]}, before in slot {self.slots[moved[0]]}"
            reasons.append(f"{len(moved)} of {len(who)} moved, e.g. {example}")
            # Each move is counted once.
            self.slots |= {address: said["slot"] for address, said in answers}
        return len(answers), reasons

    def conclude(self, column, answered, reasons):
        """What the table says of a promise."""
        self.figures[column] = str(answered)
        for reason in reasons:
            self.fail(column, reason)

    def sticks(self):
        _, reasons = self.check(addresses(WORKERS))
        if not self.slots:
            raise Failure(f"no client is answered: {reasons[0]}")
        answered, reasons = self.check([address for _ in range(ROUNDS) for address in addresses()])
        used = len(set(self.slots.values()))
        if used != WORKERS:
            reasons.append(f"{len(self.slots)} clients are in {used} slots of {WORKERS}")
        self.conclude("sticks", answered, reasons)

    def kills(self):
        answered, reasons = 0, []
        for slot, pid in sorted(self.front.serving().items()):
            mine = [address for address, its in self.slots.items() if its == str(slot)][:AFTER_A_KILL // 2]
            others = [address for address, its in self.slots.items() if its != str(slot)][:AFTER_A_KILL // 2]
            self.kill_worker(pid)
            more, wrong = self.check(mine + others, may_move=not self.app.waits)
            answered += more
            reasons += [f"slot {slot}: {reason}" for reason in wrong]
            eventually(
                f"slot {slot} has another worker", lambda: self.front.serving().get(slot, pid) != pid)
            self.front.wait_until_serving()
        more, wrong = self.check(addresses())
        self.conclude("kills", answered + more, reasons + wrong)

    def kill_worker(self, pid):
        """The worker alone, or all that it has started, where what they have accepted dies with them."""
        if self.app.waits:
            os.kill(pid, signal.SIGKILL)
            return
        os.killpg(pid, signal.SIGKILL)
        eventually("the end of a worker", lambda: not alive_in_group(pid))

    def unnoticed(self, column, act, is_done):
        """What neither workers nor open connections may notice."""
        before = self.front.serving()
        kept = [(address, connection(self.front.port, address, self.app.tls)) for address in addresses(KEPT)]
        pids = [self.app.ask(self.front.port, address, opened)["pid"] for address, opened in kept]
        acting = self.pool.submit(act)
        answered, reasons = self.check(addresses(AFTER_A_KILL))
        acting.result()
        # These have been handed over long ago. Node ends idle ones after 5 s.
        for (address, opened), pid in zip(kept, pids):
            try:
                # An HTTP library that has lost its connection would open another.
                opened.auto_open = False
                said = self.app.ask(self.front.port, address, opened)["pid"]
            except (OSError, http.client.HTTPException) as reason:
                reasons.append(f"an open connection of {address} has ended: {reason!r}")
                continue
            opened.close()
            if said != pid:
                reasons.append(f"an open connection of {address} was answered by {said}, before by {pid}")
        eventually("status that says so", lambda: is_done(self.front.status() or {}))
        self.front.wait_until_serving()
        if self.front.serving() != before:
            reasons.append(f"other workers than before: {before}, {self.front.serving()}")
        more, wrong = self.check(addresses())
        self.conclude(column, answered + len(kept) + more, reasons + wrong)

    def primary(self):
        pid = self.front.primary_pid()
        self.unnoticed(
            "primary", lambda: os.kill(pid, signal.SIGKILL), lambda status: status.get("primary_pid", pid) != pid)

    def upgrade(self):
        self.unnoticed(
            "upgrade", lambda: self.front.command("upgrade"), lambda status: status.get("upgrades", 0) > 0)

    def scales(self):
        """Two more slots and back: clients that move go to a new one, and come back."""
        more, before = WORKERS + 2, dict(self.slots)
        self.front.scale(more)
        answers, failed = self.ask_all(addresses())
        reasons = failed[:1]
        new = {str(slot) for slot in range(WORKERS, more)}
        moved = {address: said["slot"] for address, said in answers if said["slot"] != before.get(address)}
        astray = [address for address, slot in moved.items() if slot not in new]
        if astray:
            reasons.append(f"{len(astray)} of {len(moved)} moved to a slot that was there, e.g. {astray[0]}")
        # A third of them belongs to the two.
        if not 0.2 < len(moved) / len(answers) < 0.47:
            reasons.append(f"{len(moved)} of {len(answers)} moved to {len(new)} of {more} slots")
        self.front.scale(WORKERS)
        answered, wrong = self.check(addresses())
        self.conclude("scales", len(answers) + answered, reasons + wrong)

    def clients(self, port, sticky):
        """Those that ask during restarts, by what the table calls them."""
        tls = ["--tls"] if self.app.tls else []
        path = ["--path", self.app.path]
        # Each question begins a session there, which nobody ends.
        slow = self.app.path == POLLING
        found = {
            "fresh": Client("fresh.js", port, "--rate", 30 if slow else 60, "--addresses", 100, *path, *tls),
            "kept": Client("keepalive.js", port, "--clients", 10, "--pause", 200 if slow else 20, *path, *tls,
                           "--net", "127.2"),
        }
        if not self.settings.quick:
            found["cannon"] = Client("cannon.js", port, "--rate", 50 if slow else 150, *path, *tls)
        if sticky:
            for script, *arguments in self.app.talkers:
                found[script] = Client(script, port, *arguments, "--net", "127.3")
        return found

    def load(self, front, restarts, sticky):
        """What clients have seen during so many restarts of a front."""
        clients = self.clients(front.port, sticky)
        try:
            for client in clients.values():
                client.wait_until_ready()
            for number in range(restarts):
                say(f"{self.title}: restart {number + 1} of {restarts}")
                front.restart()
            # Old workers have until then to end, and with them the connections that they still have.
            time.sleep(3.5)
            return {name: client.finish() for name, client in clients.items()}
        finally:
            for client in clients.values():
                client.kill()

    def restarts(self):
        seen = self.load(self.front, self.settings.restarts, sticky=True)
        fresh, kept = seen["fresh"], seen["kept"]
        self.figures |= counts(seen)
        reasons = []
        for name in ("fresh", "kept"):
            if seen[name]["failed"]:
                reasons.append(f"{name}: {seen[name]['failed']} of {seen[name]['ok']}")
            if seen[name]["moved"] and self.app.path != POLLING:
                reasons.append(f"{name}: {seen[name]['moved']} moved")
        if fresh.get("wrong_address"):
            reasons.append(f"fresh: {fresh['wrong_address']} seen with another address")
        if not fresh["ok"] or not kept["ok"]:
            reasons.append("no load")
        for script, *arguments in self.app.talkers:
            told = seen[script]
            self.figures[script] = {name: value for name, value in told.items() if name != "seen"}
            for name in ("wrong", "wrong_address", "changed", "lost"):
                if told.get(name):
                    reasons.append(f"{script}: {name} {told[name]}")
            if told.get("connected", told["clients_seen"]) != arguments[1]:
                reasons.append(f"{script}: not all were connected, {told['clients_seen']}")
        _, wrong = self.check(addresses())
        self.conclude("restarts", self.settings.restarts, reasons + wrong)

    def restarted(self):
        """One rolling restart, without a load."""
        before = self.front.serving()
        self.front.restart()
        self.front.wait_until_serving()
        answered, reasons = self.check(addresses())
        same = [slot for slot, pid in self.front.serving().items() if before.get(slot) == pid]
        if same:
            reasons.append(f"slots {same} have the worker of before")
        self.conclude("restarts", answered, reasons)

    def tutorial(self):
        front = Tutorial(
            [*runtime(self.name), "runner.js", self.app.file], self.log("-tutorial"), WORKERS=str(WORKERS),
            NODE_OPTIONS=" ".join(self.app.flags))
        try:
            restarts = max(1, self.settings.restarts // TUTORIAL_SHARE)
            seen = self.load(front, restarts, sticky=False)
        finally:
            front.stop()
        self.figures["tutorial"] = {"restarts": restarts} | counts(seen)


def alive_in_group(group):
    """Processes of a group that can still accept clients."""
    found = []
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if os.getpgid(int(entry.name)) == group:
                with open(f"/proc/{entry.name}/stat") as stat:
                    state = stat.read().rsplit(") ", 1)[1][0]
                found += [entry.name] if state not in "ZX" else []
    return found


def counts(seen):
    """The figures of the table out of what clients say."""
    failed = lambda name: sum(seen[name]["failed"].values())
    found = {
        "fresh": seen["fresh"]["ok"], "fresh_failed": failed("fresh"),
        "kept": seen["kept"]["ok"], "kept_failed": failed("kept"), "repeated": sum(seen["kept"]["retried"].values()),
    }
    if "cannon" in seen:
        cannon = seen["cannon"]
        found |= {"cannon": cannon["ok"], "cannon_failed": cannon["errors"] + cannon["timeouts"] + cannon["non2xx"]}
    return found


def say(text):
    """Progress: on a terminal one line that changes, else nothing but what ends."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def table(cells):
    """All figures, the failures under them."""
    head = ["", "starts", "sticks", "kills", "primary", "upgrade", "scales", "restarts", "fresh", "kept", "repeated",
            "autocannon", "lost", "redisp.", "refused", "stalls"]
    beside = any(isinstance(cell.figures.get("tutorial"), dict) for cell in cells)
    if beside:
        head += ["| Node: restarts", "fresh", "kept", "repeated", "autocannon"]
    rows = [head]
    share = lambda figures, name: (
        f"{figures[name + '_failed']} of {figures[name] + figures[name + '_failed']}" if name in figures else "–")
    for cell in cells:
        figures = cell.figures
        row = [cell.title, *(str(figures.get(name, "–")) for name in head[1:8])]
        row += [share(figures, "fresh"), share(figures, "kept"), str(figures.get("repeated", "–"))]
        row += [share(figures, "cannon")]
        row += [str(figures.get(name, "–")) for name in ("lost", "redispatched", "refused", "stalls")]
        if beside:
            other = figures.get("tutorial")
            other = other if isinstance(other, dict) else {}
            row += [f"| {other.get('restarts', '–')}", share(other, "fresh"), share(other, "kept")]
            row += [str(other.get("repeated", "–")), share(other, "cannon")]
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    print("\nlost … stalls: as the primary's status counts them.")
    print("sticks, kills, primary, upgrade, scales: clients answered as promised. fresh, kept, autocannon: failed of all.")
    for cell in cells:
        for script, *_ in cell.app.talkers:
            if script in cell.figures:
                print(f"{cell.title} {script}: {json.dumps(cell.figures[script])}")
    for cell in cells:
        for reason in cell.failed:
            print(f"FAILED {cell.title} {reason} (log: {cell.log('')})")


def picked(name, there, only):
    """`node24:express`, `node24` or `express`, several with commas."""
    if not only:
        return list(there)
    found = []
    for wish in only.split(","):
        titles = [title for title in there if wish == title or wish in title.split(":")]
        if not titles:
            sys.exit(f"{name}: nothing is called {wish}: {', '.join(there)}, or a part of them before or after the colon")
        found += [title for title in titles if title not in found]
    return found


def main(name, description, cells_there):
    """`cells_there` has a runtime's name and an app for each title."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?")
    parser.add_argument("--only", metavar="RUNTIME:PROGRAM,…")
    parser.add_argument("--quick", action="store_true", help="one restart each")
    parser.add_argument("--brief", action="store_true", help="only whether it starts, sticks, and restarts once")
    parser.add_argument("--no-tutorial", action="store_true", help="leave Node's own cluster out")
    parser.add_argument("--restarts", type=int, help="so many rolling restarts [default: 20, with --quick 1]")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file, too")
    settings = parser.parse_args()
    # What was started ends with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    settings.restarts = min(settings.restarts or (1 if settings.quick else 20), 1000)
    settings.logs = TARGET / name
    program = binary(settings.binary)
    cells = []
    wanted = picked(name, cells_there, settings.only)
    for number, title in enumerate(wanted, 1):
        cell = Cell(program, title, *cells_there[title], settings)
        cell.run()
        cells.append(cell)
        outcome = "; ".join(cell.failed) or "holds"
        say("")
        print(f"{number}/{len(wanted)} {cell.title}, {cell.figures.get('seconds', 0)} s: {outcome}", flush=True)
        if settings.json:
            with open(settings.json, "w") as file:
                rows = [{"cell": each.title, "failed": each.failed, **each.figures} for each in cells]
                json.dump(rows, file, indent=1)
    print()
    table(cells)
    sys.exit(1 if any(cell.failed for cell in cells) else 0)

