"""The embedded log with 8 KB values: messages a second and CPU per message. Run by hand:

    python -m tests.benchmarks.bench_log [DIR]

fdatasync once a second, as the service does it; CPU is this process's, all threads.
"""

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faust

from config.schema import Settings
from pipeline.transport import Topic, app_options, broker_url, ensure_topics
from pipeline.transport.embedded import share
from pipeline.transport.log import Entry, Log

VALUE = os.urandom(8192)
MESSAGES = 20_000
PARTITIONS = 8


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(name: str, work: Callable[[], int]) -> None:
    started, used = time.perf_counter(), cpu()
    count = work()
    took, burnt = time.perf_counter() - started, cpu() - used
    print(f"{name:<44} {count / took:>9,.0f} messages/s {1e6 * burnt / count:>7.1f} us CPU/message")


def write(log: Log, batch: int) -> int:
    synced = time.monotonic()
    for number in range(MESSAGES // batch):
        log.write("t", number % PARTITIONS, [Entry(None, VALUE)] * batch)
        if time.monotonic() - synced > 1:
            log.sync()()
            synced = time.monotonic()
    log.sync()()
    return MESSAGES // batch * batch


def read(log: Log) -> int:
    count = 0
    for number in range(PARTITIONS):
        part = log.partition("t", number)
        offset = part.first
        while offset < part.next:
            records, offset = part.read(offset)
            count += len(records)
    return count


async def stream(data: Path, count: int, send: bool) -> tuple[float, float]:
    """Through Faust to an agent: sent by twenties, awaited, or lying in the log already. Wall and CPU seconds."""
    settings = Settings(partitions=PARTITIONS)
    await ensure_topics(settings, data, [Topic("numbers", PARTITIONS)])
    if not send:
        log = share(broker_url(settings, data)[0])
        for number in range(count):
            log.write("numbers", number % PARTITIONS, [Entry(None, VALUE)])
    app = faust.App("bench", **app_options(settings, data), datadir=str(data / "faust"), value_serializer="raw")
    numbers = app.topic("numbers", partitions=PARTITIONS, value_serializer="raw")
    done = asyncio.Event()
    seen = 0

    @app.agent(numbers)
    async def agent(messages: faust.StreamT) -> None:
        nonlocal seen
        async for _ in messages:
            seen += 1
            if seen >= count:
                done.set()

    await app.start()
    await app.tables.recovery.completed.wait()
    started, used = time.perf_counter(), cpu()
    for first in range(0, count, 20) if send else ():
        sent = [await numbers.send(value=VALUE, partition=(first + n) % PARTITIONS) for n in range(20)]
        for future in sent:
            await future
    await done.wait()
    result = time.perf_counter() - started, cpu() - used
    await app.stop()
    return result


def main() -> None:
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(prefix="wonted-bench-", dir=parent) as folder:
        for batch in (1, 20):
            log = Log(Path(folder) / f"log{batch}")
            log.create("t", PARTITIONS)
            measure(f"append, {batch} per write(2), sync each second", lambda log=log, batch=batch: write(log, batch))
            if batch == 20:
                measure("read and check", lambda log=log: read(log))
            log.close()
            started = time.perf_counter()
            Log(Path(folder) / f"log{batch}").close()
            print(f"{'open again':<44} {1000 * (time.perf_counter() - started):>9.0f} ms")
        count = 8000
        for name, send in (("through Faust: send, log, agent", True), ("through Faust: log, agent (a backlog)", False)):
            took, burnt = asyncio.run(stream(Path(folder) / str(send), count, send))
            print(f"{name:<44} {count / took:>9,.0f} messages/s {1e6 * burnt / count:>7.1f} us CPU/message")


if __name__ == "__main__":
    main()
