"""Decisions for many workloads: as wide as was said, also for those that come later, and taken back as one."""

from pathlib import Path
from typing import Any

import pytest

from models.finding import Decision
from pipeline.client import Refused
from pipeline.stages import HISTORY
from pipeline.topics import partition_of
from pipeline.wide import Wide, check, covers
from probes.event import Container
from tests.pipeline.conftest import Start
from tests.pipeline.worker import PARTITIONS, Agent, Worker, now, ran, until

WGET = "exec sh -> /usr/bin/wget -q"
SHOPS = [f"shop/{name}" for name in "abcdef"]
SECOND = 10**9


def image(name: str, tag: str = "1") -> Container:
    return Container(f"{hash(name) & 0xFFFFFFFF:064x}", name, f"registry/{name}:{tag}")


class Desk:
    """A person at the socket of a worker, and an agent beside it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.agent = Agent(worker.data)

    def seen(self, *names: str, container: Container | None = None, program: str = "/bin/date") -> None:
        for name in names:
            self.agent.send(name, [ran(name, program, "-q", container=container or image(name))])
        self.worker.until_applied()

    def control(self, action: str, **more: Any) -> dict[str, Any]:
        with self.worker.client() as client:
            answer: dict[str, Any] = client.call("control", action=action, author="ana", **more)
        return answer

    def decided(self, *names: str, **more: Any) -> list[dict[str, Any]]:
        with self.worker.client() as client:
            rows: list[dict[str, Any]] = client.call("decisions", workloads=list(names) or None, **more)
        return rows

    def imported(self, *rows: dict[str, Any]) -> list[dict[str, Any]]:
        with self.worker.client() as client:
            steps: list[dict[str, Any]] = client.call("import", decisions=list(rows))["decisions"]
        return steps

    def holding(self) -> list[str]:
        """Workloads that accept WGET themselves."""
        return sorted({row["workload"] for row in self.decided() if row["value"] == WGET and not row.get("many")})


@pytest.fixture
def desk(start: Start) -> Desk:
    desk = Desk(start(learn={"min": "1h"}))
    desk.seen(*SHOPS, "other")
    return desk


def test_a_pattern_covers_what_matches_also_later_and_over_a_restart(desk: Desk, start: Start) -> None:
    """Over all partitions, with one id; one undo takes all back."""
    assert len({partition_of(name, PARTITIONS) for name in SHOPS}) > 1
    said = desk.control("accept", value=WGET, workloads="shop/*", reason="the new backup")
    first = desk.holding()
    desk.worker.stop()
    desk = Desk(start(learn={"min": "1h"}))
    desk.seen("shop/later", "others")
    after = until(lambda: (names := desk.holding()) != first and names)
    ids = {row["id"] for row in desk.decided() if row["value"] == WGET}
    undone = desk.control("undo", value=said["id"][:12])
    desk.seen("shop/last")

    assert (SHOPS, SHOPS) == (first, said["workloads"])
    assert "is normal in all workloads that match shop/*: 6 workloads here" in said["text"]
    assert sorted([*SHOPS, "shop/later"]) == after
    assert {said["id"]} == ids
    assert "is taken back, in 7 workloads here" in undone["text"]
    assert [] == [row for row in desk.decided() if row["value"] == WGET]


def test_an_image_covers_its_workloads_whatever_their_tag_also_later(desk: Desk) -> None:
    web, newer, else_ = (Container(c * 64, c, f"registry/web:{c}") for c in "123")
    desk.seen("web/a", container=web)
    desk.seen("web/b", container=newer)

    said = desk.control("accept", workload="web/a", value=WGET, scope="image", for_s=3600)
    desk.seen("web/c", container=else_)
    until(lambda: "web/c" in desk.holding())

    assert ["web/a", "web/b"] == said["workloads"]
    assert ["web/a", "web/b", "web/c"] == desk.holding()
    assert all(row["until"] and row["author"] == "ana" for row in desk.decided("web/*"))


def test_where_it_is_a_confirmed_incident_it_is_refused_and_said(desk: Desk) -> None:
    desk.control("confirm", workload="shop/b", value=WGET)

    said = desk.control("accept", value=WGET, workloads="shop/*")

    assert [name for name in SHOPS if name != "shop/b"] == said["workloads"]
    assert "not in shop/b: " + WGET + " was confirmed as an incident by ana" in said["text"]


REFUSED: tuple[tuple[dict[str, str], str], ...] = (
    ({"value": "danger reverse_shell /bin/sh", "workloads": "shop/*"}, "accepted in one workload at a time"),
    ({"value": WGET, "workloads": "*"}, "is every workload"),
    ({"value": WGET, "workloads": "shop/*", "scope": "image"}, "expected one pattern of names"),
    ({"value": WGET, "workloads": "shop/*", "scope": "place"}, "is not known here, so it cannot be widened"),
    ({"value": "exec *", "workloads": "shop/*", "scope": "pattern"}, "is all of exec"),
    ({"value": "x y", "workloads": "shop/*"}, "no such value"),
    ({"value": WGET, "workload": "bare", "scope": "image"}, "runs no image that has a name"),
)


def test_the_rules_are_those_of_one_workload(desk: Desk) -> None:
    desk.agent.send("bare", [ran("bare", "/bin/date", container=None)])
    desk.worker.until_applied()

    for asked, words in REFUSED:
        with pytest.raises(Refused, match=words):
            desk.control("accept", **asked)
    assert [] == desk.decided()


def test_what_is_imported_for_a_workload_that_was_not_seen_waits_for_it(desk: Desk, start: Start) -> None:
    """Kept over a restart, listed meanwhile, and in force once it appears. Imported twice it waits once."""
    row = {"workload": "shop/new", "action": "lock", "kind": "exec", "id": "de_file", "author": "bo"}
    steps = [desk.imported(row)[0], desk.imported(row)[0]]
    waiting = [r for r in desk.decided() if r.get("many")]
    desk.worker.stop()
    desk = Desk(start(learn={"min": "1h"}))

    desk.seen("shop/new")
    (locked,) = until(lambda: desk.decided("shop/new"))

    assert ["later", "same"] == [step["outcome"] for step in steps]
    assert "shop/new was not seen here yet: kept until it is" in steps[0]["text"]
    assert [("shop/new", "later", "de_file")] == [(r["workload"], r["many"], r["id"]) for r in waiting]
    assert ("lock", "exec", "bo", "de_file") == tuple(locked[k] for k in ("action", "kind", "author", "id"))
    assert [] == [r for r in desk.decided() if r.get("many")]


def test_history_is_bounded_and_what_is_in_force_never_leaves_it(desk: Desk) -> None:
    first = desk.control("accept", workload="shop/a", value=WGET)["id"]
    for number in range(HISTORY // 2 + 10):
        desk.control("lock", workload="shop/a", id=f"de_lock{number}")
        desk.control("unlock", workload="shop/a", id=f"de_unlock{number}")

    rows = desk.decided("shop/a", all=True)

    assert HISTORY <= len(rows) <= HISTORY + 2
    assert {first} == {row["id"] for row in rows if row["in_force"]}
    assert rows[-1]["id"].startswith(("de_lock265", "de_unlock265"))


# --- the pure part ---------------------------------------------------------------------------------------------------


def wide(many: str, of: str, **more: Any) -> Decision:
    return Decision("de_1", 1, "accept", of, WGET, many=many, **more)


def test_each_is_due_once_and_again_with_a_new_image() -> None:
    kept = Wide()
    kept.put(wide("image", "registry/web"))

    assert [] == kept.due("a", None, 2)
    assert ["de_1"] == [d.id for d in kept.due("a", "registry/web:1", 2)]
    assert [] == kept.due("a", "registry/web:1", 2) == kept.due("b", "registry/db:1", 2)


def test_what_has_ended_is_for_nobody_and_named_to_be_dropped() -> None:
    kept = Wide()
    kept.put(wide("workloads", "shop/*", until=5 * SECOND))

    assert ([], ["de_1"]) == (kept.due("shop/a", None, 5 * SECOND), kept.over(5 * SECOND))
    assert [] == kept.over(4 * SECOND)


def test_a_workload_that_waits_is_meant_by_its_whole_name() -> None:
    """A name is no pattern, and no prefix."""
    assert covers(wide("later", "shop/[a]"), "shop/[a]", None)
    assert not covers(wide("later", "shop/[a]"), "shop/a", None)
    assert not covers(wide("later", "shop"), "shop/a", None)


def test_only_accept_is_for_many() -> None:
    with pytest.raises(ValueError, match="lock is for one workload"):
        check(Decision("d", now(), "lock", "shop/*", many="workloads"))


def test_a_damaged_record_hides_no_other(tmp_path: Path) -> None:
    import msgspec

    table = {b"s/1/de_1": msgspec.msgpack.encode(wide("workloads", "shop/*")), b"s/1/de_2": b"\xc1", b"s/11/x": b"\xc1"}
    kept = Wide()

    with pytest.raises(ValueError):
        kept.load(table, 1)
    assert ["de_1"] == list(kept.entries)
