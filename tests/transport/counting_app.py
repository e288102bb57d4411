"""A Faust app shaped like ours (agents, a table with a changelog, group_by, a timer), run as a process that tests kill.

    python tests/transport/counting_app.py BROKER DATA APP_ID [send]

Lines on stdout: `ready`, `sent N` (N was acknowledged), `timer`. A line `report` on stdin is answered by `report JSON`:
the table, by partition the last offset applied and the numbers. `quiet` ends the sending: `quiet now`.
"""

import asyncio
import json
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

import faust

from config.schema import Settings
from pipeline.transport import Topic, app_options, ensure_topics
from pipeline.transport.log import LogFull

PARTITIONS = 4


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def build(settings: Settings, data: Path, app_id: str, send: bool) -> faust.App:
    app = faust.App(app_id, **app_options(settings, data), datadir=str(data / "faust"), version=1)
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    numbers = app.topic(f"{app_id}.numbers", partitions=PARTITIONS, **raw)
    results = app.topic(f"{app_id}.results", partitions=1, **raw)
    table = app.Table(
        "applied",
        partitions=PARTITIONS,
        key_type=bytes,  # without these two JSON wins over the schema's raw
        value_type=bytes,
        schema=faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"),
    )

    quiet = asyncio.Event()

    @app.agent(numbers)
    async def apply(stream: faust.StreamT) -> None:
        """Idempotent by (partition, offset), as the baselines are."""
        async for event in stream.events():
            key = str(event.message.partition).encode()
            last, seen = json.loads(table.get(key) or b"[-1, []]")
            if event.message.offset <= last:
                continue
            seen.append(int(event.value))
            table[key] = json.dumps([event.message.offset, seen]).encode()
            await (await results.send(key=key, value=event.value))

    @app.agent(results)
    async def grouped(stream: faust.StreamT) -> None:
        async for value in stream.group_by(parity, name="parity", partitions=PARTITIONS):
            del value

    @app.timer(interval=1.0)
    async def tick() -> None:
        say("timer")

    @app.task
    async def work() -> None:
        await app.tables.recovery.completed.wait()
        say("ready")
        if send:
            app.add_future(sending())
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            if line.startswith(b"quiet"):
                quiet.set()
            if line.startswith(b"report"):
                say("report " + json.dumps({key.decode(): json.loads(value) for key, value in table.items()}))
        os._exit(1)  # the test is gone

    async def sending() -> None:
        number = int((data / "next").read_text()) if (data / "next").exists() else 0
        while not quiet.is_set():
            with suppress(OSError):  # a test fills the disk; what was not acknowledged may come again
                (data / "next").write_text(str(number + 20))
            texts = [str(n).encode() for n in range(number, number + 20)]
            futures = [await numbers.send(key=text, value=text) for text in texts]
            for n, future in enumerate(futures, number):
                try:
                    await future
                    say(f"sent {n}")
                except LogFull:
                    say(f"full {n}")
                    await asyncio.sleep(0.1)
            number += 20
            await asyncio.sleep(0.01)
        say("quiet now")

    return app


def parity(value: bytes) -> bytes:
    return b"even" if int(value) % 2 == 0 else b"odd"


def main() -> None:
    logging.basicConfig()
    broker, data, app_id, *rest = sys.argv[1:]
    app = build(Settings(broker=broker, partitions=PARTITIONS), Path(data), app_id, "send" in rest)
    settings = Settings(broker=broker, partitions=PARTITIONS)
    topics = [
        Topic(f"{app_id}.numbers", PARTITIONS),
        Topic(f"{app_id}.results", 1),
        Topic(f"{app_id}-applied-changelog", PARTITIONS, compact=True),
    ]
    asyncio.run(ensure_topics(settings, Path(data), topics))
    faust.Worker(app, loglevel="INFO", redirect_stdouts=False, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
