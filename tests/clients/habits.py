"""Clients on Python's `websockets`, each with a habit of its own, at work until standard input ends.

    habits.py HOST:PORT

Prints `ready` when each has had an answer, and a line of JSON at the end: what they have seen.
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

MEBIBYTE = 1024 * 1024

seen = {"exchanges": {}, "disconnects": [], "failed": [], "wrong": [], "moves": 0}
done = asyncio.Event()


def check(habit, expected, found):
    if expected != found:
        seen["wrong"].append(f"{habit}: {found[:80]!r} and not {expected[:80]!r}")


async def counts(socket, number):
    await socket.send(json.dumps({"number": number}))
    while True:
        told = json.loads(await socket.recv())
        if told["event"] == "answer":
            check("counts", str(number), str(told["number"]))
            return
        if told["event"] == "resumed":
            seen["moves"] += 1
        if told["event"] == "breach":
            seen["wrong"].append(f"counts: {told}")


async def fragments_with_pings(socket, number):
    parts = [f"{number} ", "in ", "parts"]

    async def one_by_one():
        for part in parts:
            yield part
            # The pong comes while the message is unfinished.
            await (await socket.ping())

    await socket.send(one_by_one())
    check("fragments", "".join(parts), await socket.recv())


async def large_messages(socket, number):
    message = number.to_bytes(8, "big") * (MEBIBYTE // 8)
    await socket.send(message)
    check("large", message, await socket.recv())


async def slow_reader(socket, number):
    messages = [f"{number}.{part} ".ljust(16 * 1024, "x") for part in range(64)]

    async def send_all():
        for message in messages:
            await socket.send(message)

    sending = asyncio.create_task(send_all())
    await asyncio.sleep(0.3)
    for message in messages:
        check("slow reader", message, await socket.recv())
    await sending


async def leaves_in_the_middle(socket, number):
    for part in range(5):
        await socket.send(f"{number}.{part}")
    check("leaves", f"{number}.0", await socket.recv())
    await socket.close()


async def keep(url, habit, answered):
    while not done.is_set():
        try:
            async with connect(url, max_size=None, compression=None) as socket:
                number = 0
                while not done.is_set() and socket.close_code is None:
                    await habit(socket, number)
                    number += 1
                    exchanges = seen["exchanges"]
                    exchanges[habit.__name__] = exchanges.get(habit.__name__, 0) + 1
                    answered.set()
                    await asyncio.sleep(0.005)
                # Between two exchanges; 1000 is a client's own end.
                if socket.close_code not in (None, 1000):
                    seen["disconnects"].append(socket.close_code)
        except ConnectionClosed as closed:
            seen["disconnects"].append(closed.rcvd.code if closed.rcvd else 1006)
        except (OSError, WebSocketException) as error:
            seen["failed"].append(repr(error))
            await asyncio.sleep(0.1)


async def main(address):
    habits = [
        (counts, "/count?push=50"),
        (fragments_with_pings, "/echo"),
        (large_messages, "/echo"),
        (slow_reader, "/echo"),
        (leaves_in_the_middle, "/echo"),
    ]
    answered = [asyncio.Event() for _ in habits]
    clients = [
        asyncio.create_task(keep(f"ws://{address}{path}", habit, event))
        for (habit, path), event in zip(habits, answered)
    ]
    for event in answered:
        await event.wait()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    done.set()
    await asyncio.gather(*clients)
    print(json.dumps(seen), flush=True)


asyncio.run(main(sys.argv[1]))
