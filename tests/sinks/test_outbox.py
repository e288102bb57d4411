"""The outbox: nothing put is lost, nothing is told twice without saying so, nobody waits for anybody else."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from pipeline.alert import Alert
from pipeline.sinks.base import NOTHING, Clock, Delivery, Plain, Told
from pipeline.sinks.outbox import Outbox, OutboxError, read_alerts
from tests.sinks.running import running

Make = Callable[..., Alert]
ROOT = Path(__file__).parents[2]


class Recorder(Plain):
    """A sink that takes what it gets, after the answers it was given."""

    def __init__(self, name: str = "rec", answers: Sequence[Delivery | Exception] = (), chat: bool = False) -> None:
        self.name = name
        self.edits = self.digests = chat
        self.fold = 5.0 if chat else 0.0
        self.answers = list(answers)
        self.told: list[tuple[Alert, Told]] = []
        self.digested: list[tuple[list[Alert], Told]] = []
        self.changed = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def tell(self, alert: Alert, told: Told = NOTHING) -> Delivery:
        await self.open.wait()
        answer = (
            self.answers.pop(0) if self.answers else Delivery("sent", ref=f"ref-{alert.id}", root=told.thread is None)
        )
        if isinstance(answer, Exception):
            raise answer
        if answer.ok:
            self.told.append((alert, told))
        self.changed.set()
        return answer

    def fit(self, alerts: Sequence[Alert]) -> int:
        return 15

    async def digest(self, alerts: Sequence[Alert], told: Told = NOTHING) -> Delivery:
        self.digested.append((list(alerts), told))
        self.changed.set()
        return Delivery("sent", ref=f"digest-{len(self.digested)}")

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @property
    def ids(self) -> list[str]:
        return [alert.id for alert, _ in self.told]


async def drained(outbox: Outbox) -> None:
    """Everything delivered and written down."""
    async with asyncio.timeout(20):
        await outbox.drained()


async def test_what_was_put_is_told_once_and_in_order(tmp_path: Path, alert: Make, clock: Clock) -> None:
    sink = Recorder()
    outbox = Outbox(tmp_path / "outbox.db", [sink], clock=clock)

    assert (3, 0, 1) == (
        outbox.put([alert(n) for n in range(3)]), outbox.put([alert(1)]), outbox.put([alert(1), alert(9)]),
    )  # fmt: skip
    assert 4 == outbox.depth() and (outbox.oldest() or 0) >= 0
    async with running(outbox):
        await drained(outbox)

    assert [alert(n).id for n in (0, 1, 2, 9)] == sink.ids
    assert (0, None, 4) == (outbox.depth(), outbox.oldest(), outbox.stats()["sinks"]["rec"]["sent"])
    assert 0o600 == (tmp_path / "outbox.db").stat().st_mode & 0o777


async def test_a_sink_that_hangs_holds_up_no_other(tmp_path: Path, alert: Make, clock: Clock) -> None:
    stuck, quick = Recorder("stuck"), Recorder("quick")
    stuck.open.clear()
    outbox = Outbox(tmp_path / "outbox.db", [stuck, quick], clock=clock)

    async with running(outbox):
        outbox.put([alert(n) for n in range(5)])
        await quick.until(lambda: len(quick.told) == 5)
        assert [] == stuck.told and 5 == outbox.depth()
        stuck.open.set()
        await drained(outbox)

    assert 5 == len(stuck.told)


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (Delivery("retry", error="down"), False),
        (Delivery("retry", error="ratelimited", after=7.0), False),
        (Delivery("retry", error="invalid_auth", refused=True), False),
        (Delivery("unknown", error="no answer"), True),
        (RuntimeError("a bug"), True),
    ],
)
async def test_what_a_sink_did_not_take_is_told_later(
    answer: Delivery | Exception, again: bool, tmp_path: Path, alert: Make, clock: Clock
) -> None:
    """After whatever happened: each alert once, and marked where it may have arrived before."""
    sink = Recorder(answers=[answer] * 3)
    outbox = Outbox(tmp_path / "outbox.db", [sink], clock=clock)

    async with running(outbox):
        outbox.put([alert(n) for n in range(4)])
        await drained(outbox)

    assert [alert(n).id for n in range(4)] == sink.ids
    assert [again, False, False, False] == [told.again for _, told in sink.told]
    assert {} == outbox.problems


async def test_a_sink_that_says_when_is_left_alone_until_then(tmp_path: Path, alert: Make, clock: Clock) -> None:
    sink = Recorder(answers=[Delivery("retry", error="ratelimited", after=90.0)])
    outbox = Outbox(tmp_path / "outbox.db", [sink], clock=clock)

    async with running(outbox):
        before = clock.now()
        outbox.put([alert(1)])
        await asyncio.wait_for(sink.changed.wait(), 20)
        outbox.put([alert(2)])
        await drained(outbox)

    assert clock.now() - before >= 90.0


async def test_pauses_grow_from_a_second_to_five_minutes(tmp_path: Path, clock: Clock) -> None:
    sink = Recorder()
    outbox = Outbox(tmp_path / "outbox.db", [sink], clock=clock, rng=random.Random(1))
    waits = [outbox._backoff(sink, Delivery("retry"), count=True) for _ in range(14)]

    assert 1.0 <= waits[0] <= 1.0 and all(1.0 <= wait <= 300.0 for wait in waits)
    assert waits[-1] >= 150.0 and len(set(waits)) > 8


async def test_an_alert_that_no_sink_can_take_does_not_block_the_rest(
    tmp_path: Path, alert: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Recorder(answers=[Delivery("dead", error="invalid_blocks"), *[RuntimeError("bug")] * 5])
    outbox = Outbox(tmp_path / "outbox.db", [sink], clock=clock)

    async with running(outbox):
        outbox.put([alert(n) for n in range(3)])
        await drained(outbox)

    assert [alert(2).id] == sink.ids
    assert 2 == outbox.counts["rec", "dead"]
    assert alert(1).command in caplog.text, "what nobody took is in our own log"


async def test_a_chat_gets_only_the_latest_state_and_its_own_message_back(
    tmp_path: Path, alert: Make, clock: Clock
) -> None:
    sink, file = Recorder(chat=True), Recorder("file")
    outbox = Outbox(tmp_path / "outbox.db", [sink, file], clock=clock)
    first, worse, latest = (
        msgspec.structs.replace(alert(1), seen=seen, update=seen > 1, escalates=seen == 2) for seen in (1, 2, 5)
    )
    outbox.put([first, worse])

    async with running(outbox):
        await drained(outbox)
        outbox.put([latest])
        await drained(outbox)

    assert [(2, None, True), (5, f"ref-{first.id}", False)] == [
        (told.seen, at.message, told.escalates) for told, at in sink.told
    ]
    assert [1, 2, 5] == [told.seen for told, _ in file.told]


async def test_alerts_of_an_incident_find_its_thread(tmp_path: Path, alert: Make, clock: Clock) -> None:
    sink = Recorder(chat=True)
    path = tmp_path / "outbox.db"
    async with running(Outbox(path, [sink], clock=clock)) as outbox:
        outbox.put([alert(1), alert(2), alert(3, incident="in_other")])
        await drained(outbox)
    async with running(Outbox(path, [sink], clock=clock)) as outbox:
        outbox.put([alert(4)])
        await drained(outbox)

    root = f"ref-{alert(1).id}"
    assert [None, root, None, root] == [told.thread for _, told in sink.told]


async def test_folded_alerts_come_together_in_one_digest(tmp_path: Path, alert: Make, clock: Clock) -> None:
    sink, file = Recorder(chat=True), Recorder("file")
    outbox = Outbox(tmp_path / "outbox.db", [sink, file], clock=clock)
    outbox.put([alert(1)])

    async with running(outbox):
        for n in range(2, 6):
            outbox.put([alert(n, fold="incident", severity="critical" if n == 4 else "low")])
        await drained(outbox)

    [(digested, told)] = sink.digested
    assert [alert(n).id for n in (4, 2, 3, 5)] == [one.id for one in digested]
    assert f"ref-{alert(1).id}" == told.thread
    assert 5 == len(file.told)


async def test_after_an_outage_a_crowd_becomes_digests_critical_first(
    tmp_path: Path, alert: Make, clock: Clock
) -> None:
    """More than 20 waiting: one digest per workload, as many as fit, and no alert missing from them."""
    sink = Recorder(chat=True)
    path = tmp_path / "outbox.db"
    outbox = Outbox(path, [sink], clock=clock)
    for n in range(40):
        workload = "bad" if n in (30, 31) else f"w{n % 2}"
        outbox.put([alert(n, workload=workload, severity="critical" if n == 31 else "low", incident=f"in_{n}")])

    async with running(outbox):
        await drained(outbox)

    assert [alert(n).id for n in (31, 30)] == [one.id for one in sink.digested[0][0]]
    assert all(1 == len({one.workload for one in alerts}) and len(alerts) <= 15 for alerts, _ in sink.digested)
    told = [one.id for alerts, _ in sink.digested for one in alerts] + sink.ids
    assert sorted(alert(n).id for n in range(40)) == sorted(told)


async def test_what_was_being_sent_at_a_kill_is_told_again_and_marked(
    tmp_path: Path, alert: Make, clock: Clock
) -> None:
    path = tmp_path / "outbox.db"
    code = f"""
import asyncio, sys
from pipeline.alert import Alert
from pipeline.sinks.base import Plain
from pipeline.sinks.outbox import Outbox

class Hangs(Plain):
    name = "rec"
    async def tell(self, alert, told=None):
        print("sending", alert.id, flush=True)
        await asyncio.sleep(1000)

async def main():
    outbox = Outbox({str(path)!r}, [Hangs()])
    outbox.put([Alert.decode(data) for data in {[alert(n).encode() for n in range(3)]!r}])
    await outbox.run()

asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert f"sending {alert(0).id}\n".encode() == await child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    await child.wait()

    sink = Recorder()
    async with running(Outbox(path, [sink], clock=clock)) as outbox:
        await drained(outbox)

    assert [(alert(n).id, n == 0) for n in range(3)] == [(one.id, told.again) for one, told in sink.told]


async def test_a_stop_before_the_first_step_ends_the_run(tmp_path: Path, alert: Make, clock: Clock) -> None:
    """Nor does it end the next run."""
    sink = Recorder()
    outbox = Outbox(tmp_path / "outbox.db", [sink], clock=clock)
    run = asyncio.create_task(outbox.run())
    outbox.stop()
    await asyncio.wait_for(run, 20)

    outbox.put([alert(1)])
    async with running(outbox):
        await drained(outbox)

    assert [alert(1).id] == [one.id for one, _ in sink.told]


async def test_kill_nine_at_any_moment_loses_no_alert_that_was_put(tmp_path: Path, alert: Make, clock: Clock) -> None:
    """Killed again and again while putting and telling: what `put` returned for is told, in the end, at least once."""
    path, out = tmp_path / "outbox.db", tmp_path / "told.jsonl"
    alerts = [alert(n) for n in range(200)]
    code = f"""
import asyncio, sys
from pipeline.alert import Alert
from pipeline.sinks.jsonlines import JsonLines
from pipeline.sinks.outbox import Outbox

async def main():
    outbox = Outbox({str(path)!r}, [JsonLines({str(out)!r})])
    run = asyncio.create_task(outbox.run())
    for line in sys.stdin.buffer:
        alert = Alert.decode(bytes.fromhex(line.decode()))
        outbox.put([alert])
        print(alert.id, flush=True)
        await asyncio.sleep(0.002)
    await asyncio.sleep(1000)

asyncio.run(main())
"""
    rng = random.Random(7)
    acknowledged: set[str] = set()
    for _ in range(4):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdin is not None and child.stdout is not None
        rest = [one for one in alerts if one.id not in acknowledged]
        child.stdin.write(b"".join(one.encode().hex().encode() + b"\n" for one in rest))
        for _ in range(rng.randint(1, 40)):
            acknowledged.add((await child.stdout.readline()).decode().strip())
        child.send_signal(signal.SIGKILL)
        await child.wait()

    from pipeline.sinks.jsonlines import JsonLines

    async with running(Outbox(path, [JsonLines(str(out))], clock=clock)) as outbox:
        await drained(outbox)

    told = [line["id"] for line in map(msgspec.json.decode, out.read_bytes().splitlines())]
    assert acknowledged <= set(told)
    assert len(told) == len(set(told)), "a file can be looked into: nothing is there twice"


async def test_listing_shows_the_latest_telling_in_order_of_time(tmp_path: Path, alert: Make, clock: Clock) -> None:
    path = tmp_path / "outbox.db"
    outbox = Outbox(path, clock=clock)
    edit = msgspec.structs.replace(alert(1), seen=4, update=True, told=alert(1).told + 60 * 10**9)
    outbox.put([alert(2), alert(1), edit])

    assert [edit.to_json(), alert(2).to_json()] == outbox.alerts()
    assert [edit.to_json()] == outbox.alerts(since=alert(1).told + 1)
    assert outbox.alerts() == read_alerts(path)
    assert [edit] == outbox.find(edit.id) == outbox.find(edit.id[:-1])
    assert [] == outbox.find("al_nothing")


async def test_followers_see_each_telling_as_it_is_put(tmp_path: Path, alert: Make, clock: Clock) -> None:
    outbox = Outbox(tmp_path / "outbox.db", clock=clock)
    follower = outbox.follow()
    waiting = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0)
    outbox.put([alert(1)])

    assert alert(1).to_json() == await asyncio.wait_for(waiting, 5)
    await follower.aclose()


@pytest.mark.parametrize("damage", ["junk", "torn", "middle"])
async def test_a_damaged_outbox_is_moved_aside_and_said(
    damage: str, tmp_path: Path, alert: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox.db"
    before = Outbox(path, [Recorder()], clock=clock)
    before.put([alert(n) for n in range(200)])
    await before.close()
    whole = path.read_bytes()
    path.write_bytes(
        {"junk": b"not a database at all" * 50, "torn": whole[:9000], "middle": whole[:4096] + b"\xaa" * 40000}[damage]
    )

    outbox = Outbox(path, [Recorder()], clock=clock)

    assert 1 == outbox.corrupt and "moved aside" in caplog.text
    assert 1 == len(list(tmp_path.glob("outbox.db.corrupt-*")))
    assert 1 == outbox.put([alert(1)])


async def test_damage_while_running_does_not_stop_us(tmp_path: Path, alert: Make, clock: Clock) -> None:
    path = tmp_path / "outbox.db"
    outbox = Outbox(path, [Recorder()], clock=clock)
    outbox.put([alert(n) for n in range(300)])
    outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"\xaa" * path.stat().st_size)
    os.close(fd)
    outbox._db.execute("PRAGMA shrink_memory")

    with contextlib.suppress(OutboxError):
        outbox.put([alert(1000)])
        assert [alert(1000).id] == [one["id"] for one in outbox.alerts()]
        assert 1 == outbox.corrupt


async def test_a_full_disk_is_an_error_that_says_so_and_nothing_half_put(
    tmp_path: Path, alert: Make, clock: Clock
) -> None:
    outbox = Outbox(tmp_path / "outbox.db", [Recorder()], clock=clock)
    outbox.put([alert(1)])
    pages = outbox._db.execute("PRAGMA page_count").fetchone()[0]
    outbox._db.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(OutboxError, match="full"):
        outbox.put([alert(n) for n in range(2, 200)])
    assert 1 == len(outbox.alerts())
    outbox._db.execute("PRAGMA max_page_count = 1000000")

    assert 198 == outbox.put([alert(n) for n in range(2, 200)])


async def test_old_alerts_are_forgotten_once_told(tmp_path: Path, alert: Make, clock: Clock) -> None:
    sink = Recorder()
    outbox = Outbox(tmp_path / "outbox.db", [sink], clock=clock, keep=100.0)
    old = msgspec.structs.replace(alert(1), told=int((clock.now() - 1000) * 1e9))
    outbox.put([old, msgspec.structs.replace(alert(2), told=int((clock.now() + 10**6) * 1e9))])

    assert 0 == outbox.prune(), "not told yet"
    async with running(outbox):
        await drained(outbox)
    outbox.prune()

    assert [alert(2).id] == [one["id"] for one in outbox.alerts()]


async def test_an_outbox_that_no_sink_empties_stays_within_its_size_and_says_what_it_gave_up(
    tmp_path: Path, alert: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path / "outbox.db", [Recorder()], clock=clock, keep_bytes=200_000)
    outbox.put([msgspec.structs.replace(alert(n), told=n + 1) for n in range(400)])

    outbox.prune()

    left = outbox.alerts()
    assert 0 < len(left) < 400 and alert(399).id == left[-1]["id"]
    assert 400 - len(left) == outbox.counts["outbox", "pruned"] and "gave up" in caplog.text


def test_a_second_reader_does_not_disturb(tmp_path: Path, alert: Make) -> None:
    outbox = Outbox(tmp_path / "outbox.db", [Recorder()])
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM alerts").fetchone()
        assert 1 == outbox.put([alert(1)])
    assert os.path.exists(tmp_path / "outbox.db")
