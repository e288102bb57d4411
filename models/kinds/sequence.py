"""sequence: which system calls a process made, told by the kernel at its end and each minute; against its program's."""

from typing import TYPE_CHECKING, Any

from models import budget as budgets
from models import drift, host, programs, releases
from models.budget import Activity
from models.callsets import CallSets, Departure
from models.conformal import Calibrated
from models.counts import DAY, Categories, Once
from models.finding import Finding
from models.kinds.view import Known, who
from models.learning import duration
from probes.event import Event
from probes.names import NUMBERS

if TYPE_CHECKING:
    from models.baseline import Baseline

FORCED = 2.0
"""After a learning that the clock ended: a service stops, reloads and meets errors in calls nobody saw yet."""
MANY = 8
SHOWN = 8
SAID = 64
FORKED = " (forked)"
_ATTACK = {
    "ptrace": "T1055.008", "process_vm_readv": "T1055", "process_vm_writev": "T1055", "bpf": "T1014",
    "init_module": "T1547.006", "finit_module": "T1547.006", "mount": "T1611", "setns": "T1611", "unshare": "T1611",
    "pivot_root": "T1611", "chroot": "T1611", "keyctl": "T1555", "open_by_handle_at": "T1611",
}  # fmt: skip


class ProcessCalls:
    """The sets of calls of one workload's programs, and what it takes to tell of one more.

    Known is what was seen while learning, and afterwards whatever was not told. The first set of a program that is
    known otherwise is taken as it is: a daemon tells its calls only once a minute. What a program forks without
    starting anything is known apart from it: of a database, it makes far fewer calls. Of a program that is not known,
    other detectors tell. A call that the privilege detector has judged already is not judged again.
    """

    __slots__ = ("activity", "categories", "counted", "dangers", "said", "sets", "usual")

    def __init__(self) -> None:
        self.sets = CallSets()
        self.categories = Categories()
        self.activity = Activity()
        self.usual = Calibrated()
        """Scores of what was learned, and of what was told and not confirmed."""
        self.counted: dict[str, list[Any]] = {}
        """value -> [score, day it was told, whether it is in `usual`]."""
        self.said: dict[str, str] = {}
        """value -> process that it was told of last: the same set comes again each minute."""
        self.dangers: dict[str, list[str]] = {}
        """program -> calls that the danger list told of."""

    def danger(self, event: Event) -> None:
        """The danger list has told of this call."""
        if event.kind != "privilege":
            return
        calls = self.dangers.setdefault(who(event), [])
        if event.action not in calls:
            calls.append(event.action)
        if len(self.dangers) > SAID:
            del self.dangers[next(iter(self.dangers))]

    def observe(self, b: "Baseline", event: Event) -> Finding | None:
        used = _used(event)
        if not used or event.process.exe is None or "sequence" in b.budgets.off:
            return None
        program = role(event)
        known = program in self.sets.known
        learning = b.learning.mode == "learning"
        if not known and not learning and who(event) not in b.programs:
            return None
        departure = self.sets.departure(program, used)
        unjudged = None
        if departure is not None and known:
            open_ = departure._replace(new=departure.new & ~self._judged(b, program))
            if not learning and open_.new and (finding := self._weigh(b, event, program, open_)) is not None:
                return finding if isinstance(finding, Finding) else None
            if b.decisions.locked("sequence") is not None:
                return None
            self.categories.add(_category(departure), b.window)
            self.activity.note(_place(program, departure), b.window)
            unjudged = open_ if open_.new else None
        if known:
            self.usual.learn(self.sets.score(program, used, unjudged), b.now // DAY)
        self.sets.learn_one({"program": program, "used": used})
        return None

    def _judged(self, b: "Baseline", program: str) -> int:
        """Calls of this program that the privilege detector learned or told, or the danger list told."""
        program = program.removesuffix(FORKED)
        calls = set(Known(b.tree, b.programs, b.host).below("privilege", program))
        calls.update(self.dangers.get(program, ()))
        calls.update(row[0][2] for row in b.quarantine.values() if row[0][:2] == ["privilege", program])
        return _mask(calls)

    def _weigh(self, b: "Baseline", event: Event, program: str, departure: Departure) -> Finding | bool | None:
        """A finding; True: told already of this process; None: usual enough to be learned."""
        value = f"sequence {program} {' '.join(departure.names)}"
        if value in b.accepted or b.decisions.silent(
            ("sequence", program, *departure.names), value, event.count, b.now
        ):
            return None
        expected, odds = self._expected(b, program, departure, value)
        forgotten = bool(self._forgotten(b, program) & departure.new)
        if forgotten:
            expected = 0.0
        elif (
            not departure.grave
            and odds >= releases.HARMLESS
            and (drifted := drift.verdict(b, event, "sequence", value, expected, self.categories)) is not None
        ):
            b.quarantine.pop(value, None)
            return drifted[0]
        of = b.budgets.of("sequence")
        if b.learning.mode == "enforcing" and not forgotten:
            self.settle(b.now // DAY)
            score = self.sets.score(program, departure.new, departure)
            expected = max(expected, self.usual.expected_per_week(score, b.learning.observed(b.now)))
        if expected > of:
            return None
        process = f"{event.process.pid} {event.process.start}"
        again = self.said.get(value) == process
        self.said[value] = process
        if len(self.said) > SAID:
            del self.said[next(iter(self.said))]
        b.hold(value, ["sequence", program, *departure.names], expected, event.count)
        if again:
            return True
        if value not in b.decisions.confirmed:
            self.count(value, [self.sets.score(program, departure.new, departure), b.now // DAY, False])
        b.told.add(f"sequence {program}", value, b.now)
        return self._finding(b, event, program, departure, value, expected, odds)

    def _expected(self, b: "Baseline", program: str, departure: Departure, value: str) -> tuple[float, float]:
        odds = departure.odds(program)
        now, learning = b.now, b.learning
        observed = learning.observed(now)
        forced = learning.mode != "enforcing" and observed < max(b.rule.evidence, 3600.0)
        if forced:
            ended = learning.ended if learning.ended is not None else now
            since = learning.start + (ended - learning.start) / 2
            expected = budgets.by_clock(odds, self.activity.since(_place(program, departure), since), False, now, since)
            if not departure.grave:
                expected *= FORCED
            if b.host:
                service = b.name.endswith(".service") and not host.PEOPLE.match(b.name)
                expected *= host.SERVICE if service else host.WORK
        else:
            active = self.activity.since(_place(program, departure), now - min(observed, 20 * 86_400) / 2)
            expected = budgets.by_evidence(self.categories, _category(departure), odds, observed, active, now)
        return expected * b.alerts.factor(f"sequence {program}", value, now, forced), odds

    def _finding(
        self, b: "Baseline", event: Event, program: str, departure: Departure, value: str, expected: float, odds: float
    ) -> Finding:
        names, short = departure.names, programs.base(program.removesuffix(FORKED))
        near = programs.base(departure.nearest.removesuffix(FORKED))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        calls = "a system call" if len(names) == 1 else f"{len(names)} system calls"
        ended = b.learning.ended if b.learning.ended is not None else b.now
        why = (
            f"Never in {duration(ended - b.learning.start)} of learning, nor since ({departure.processes:,} looks at "
            f"{short}); the nearest known process, of {near}, differs by "
            f"{departure.distance:.2f}, where 0 is the same set of calls and 1 nothing in common{b.forced_note()}."
        )
        return b.made(
            event,
            kind="sequence",
            detector="sequences",
            severity="high" if odds <= 0.1 else "medium",
            what=f"{short} in {b.name} used {calls} it never used: {', '.join(names[:SHOWN])}{more}",
            why=why,
            expected=expected,
            budget=b.budgets.of("sequence"),
            value=value,
            attack=tuple(dict.fromkeys(_ATTACK[n] for n in names if n in _ATTACK)) or ("T1106",),
            evidence={
                "new": names,
                "nearest": departure.nearest,
                "distance": round(departure.distance, 4),
                "calls": event.detail.get("calls"),
                "misses": event.detail.get("misses"),
                "odds": odds,
            },
        )

    # --- decisions and state -----------------------------------------------------------------------------------------

    def accept(self, value: str) -> None:
        program, calls = split(value)
        if program in self.sets.known:
            self.sets.known[program].union |= _mask(calls)

    def forget(self, value: str) -> bool:
        program, calls = split(value)
        return self.sets.forget(program, calls)

    def _forgotten(self, b: "Baseline", program: str) -> int:
        values = [split(value) for value in b.unlearned if value.startswith("sequence ")]
        return _mask({call for of, calls in values if of == program for call in calls})

    def count(self, value: str, row: list[Any] | None) -> None:
        """What is told is not known from now on, but it was one of those that a week brings: `row` in `counted`."""
        if row is not None:
            self.counted[value] = row
            if row[2]:
                self.usual.learn(row[0], row[1])
            if len(self.counted) > SAID:
                del self.counted[next(iter(self.counted))]

    def settle(self, today: int) -> None:
        """What was told before this day counts; of this day it is one matter, and drift.py's to judge."""
        for row in self.counted.values():
            if not row[2] and row[1] < today:
                row[2] = True
                self.usual.learn(row[0], row[1])

    def excuse(self, value: str) -> list[Any] | None:
        """It was no false alert: it makes no other less unusual. What was taken out."""
        row = self.counted.pop(value, None)
        if row is not None and row[2]:
            self.usual.forget(row[0], row[1])
        return row

    def rows(self) -> list[tuple[str, int]]:
        """(program and how many calls it is known to make, how often it was looked at)."""
        return [
            (f"sequence {program} ({known.union.bit_count()} calls)", known.processes)
            for program, known in self.sets.known.items()
        ]

    def dump(self) -> list[Any]:
        return [
            self.sets.dump(),
            self.categories.dump(),
            self.activity.places,
            self.said,
            self.dangers,
            self.usual.dump(),
            self.counted,
        ]

    def load(self, state: list[Any]) -> None:
        sets, categories, places, self.said, self.dangers, *later = state
        if later:  # a snapshot from before there was any begins it anew
            self.usual.load(later[0])
            self.counted = later[1]
        times = Once[int]()
        self.categories.load(categories, times)
        self.activity.load(places, times)
        self.sets.load(sets)


def role(event: Event) -> str:
    """The program, and whether the process is a fork of it that started no other."""
    process, up = event.process, event.process.parent
    forked = up is not None and (up.exe, up.argv) == (process.exe, process.argv)
    return who(event) + FORKED if forked else who(event)


def split(value: str) -> tuple[str, list[str]]:
    """
    >>> split("sequence /bin/busybox wget ptrace setns")
    ('/bin/busybox wget', ['ptrace', 'setns'])
    """
    words = value.split(" ")[1:]
    calls: list[str] = []
    while words and words[-1] in NUMBERS:
        calls.insert(0, words.pop())
    return " ".join(words), calls


def _mask(calls: Any) -> int:
    return sum(1 << NUMBERS[call] for call in set(calls) if call in NUMBERS)


def _category(departure: Departure) -> str:
    """Who brings a few new calls at a time is not excused for many at once, or for a grave one."""
    if departure.grave:
        return "sequence grave"
    return "sequence many" if (departure.new & departure.foreign).bit_count() >= MANY else "sequence few"


def _place(program: str, departure: Departure) -> str:
    return f"{program}|{_category(departure)}"


def _used(event: Event) -> int:
    """The 512 bits, as an integer; 0 where there are none."""
    told = event.detail.get("used")
    if not isinstance(told, str) or len(told) != 128:
        return 0
    try:
        return int.from_bytes(bytes.fromhex(told), "little")
    except ValueError:
        return 0
