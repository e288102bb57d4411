"""What a workload pays, and what Wonted uses for it: each load beside each variant, in rounds, CPU time.

A round is all variants one after the other, each with all loads. Ratios are taken within a round, and told as the
median over the rounds with the lowest and the highest: clocks, guests and caches change more between minutes than most
of what is measured here.
"""

import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.client import ClientError
from pipeline.demo.service import Silent
from tests.benchmarks import figures, variants
from tests.benchmarks.common import TICKS, Load, Result, cell, folder
from tests.benchmarks.figures import Spread, Table
from tests.benchmarks.loads import LOADS, WARM, Run, Work
from tests.benchmarks.variants import VARIANTS, Variant

ROUNDS = 3
QUICK = 0.3
"""Size of each load in a quick run."""
FAILURES = (OSError, RuntimeError, TimeoutError, Silent, ClientError, subprocess.SubprocessError)
FLOOR_GOAL, WORK_GOAL, PROBE_GOAL = 1.9, 0.95, 1.0
"""getppid's extra cost in empty raw tracepoints; real loads' work per CPU-second; the probe's % of a core."""


@dataclass(frozen=True, slots=True)
class Plan:
    loads: Sequence[Work] = LOADS
    variants: Sequence[Variant] = VARIANTS
    rounds: int = ROUNDS
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    run: Run
    own: dict[str, float]
    """CPU seconds of what is attached, by role, while the load ran (loops: all repeats of it)."""
    late: dict[str, float]
    """And from then until it had worked off the rest."""
    wall_s: float
    """How long that load ran in all."""
    others: float
    """CPU seconds that everything else on the machine used meanwhile."""
    alone: bool
    """No program of somebody else was attached, neither before nor after."""


@dataclass
class Cost:
    """Samples[load][variant], one per round."""

    plan: Plan
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    notes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    left_out: list[str] = field(default_factory=list)

    def measure(self) -> None:
        with folder() as base:
            load = Load(base)
            for number in range(self.plan.rounds):
                for variant in self.plan.variants:
                    start = time.monotonic()
                    try:
                        self.beside(variant, base, load)
                    except FAILURES as error:
                        self.leave_out(variant, error)
                    progress(f"round {number + 1}/{self.plan.rounds}, {variant.name}: {time.monotonic() - start:.0f} s")

    def beside(self, variant: Variant, base: Path, load: Load) -> None:
        with variants.attached(variant) as attached:
            for work in self.plan.loads:
                try:
                    self.one(variant, attached, work, base, load)
                except FAILURES as error:
                    self.leave_out(work, error)
        for note in attached.notes:
            self.notes[note] += 1

    def leave_out(self, one: Work | Variant, error: Exception) -> None:
        """For good, and what was measured of it: a table needs each load beside each variant in each round."""
        self.left_out.append(f"{one.title} is left out: {error}")
        loads, beside = (
            [other for other in all_ if other is not one] for all_ in (self.plan.loads, self.plan.variants)
        )
        self.plan = replace(self.plan, loads=loads, variants=beside)
        self.samples.pop(one.name, None)
        for by_variant in self.samples.values():
            by_variant.pop(one.name, None)

    def one(self, variant: Variant, attached: variants.Attached, work: Work, base: Path, load: Load) -> None:
        with cell() as place, work.running(place, base, load) as go:
            go(WARM * self.plan.scale)
            attached.ready_for(place)
            before, start, known = attached.cpu(), time.monotonic(), busy() - place.cpu()
            alone = not attached.others()
            run = go(self.plan.scale)
            after, wall, others = attached.cpu(), time.monotonic() - start, busy() - place.cpu() - known
            alone = alone and not attached.others()
            attached.settle(place)
            last = attached.cpu()
        own = {role: after[role] - before[role] for role in after}
        late = {role: last[role] - after[role] for role in after}
        self.samples[work.name][variant.name].append(Sample(run, own, late, wall, others - sum(own.values()), alone))

    def each(self, work: Work, variant: str) -> list[float]:
        """CPU seconds per piece of work, by round."""
        return [sample.run.cpu_s / sample.run.work for sample in self.samples[work.name][variant]]

    def tables(self) -> Iterator[Table]:
        bare, *others = (variant.name for variant in self.plan.variants)
        loops = [work for work in self.plan.loads if work.loop]
        if loops:
            rows = [[w.title, f"{self.median_ns(w):,.0f}", *(self.added(w, v) for v in others)] for w in loops]
            title = "Cost of a call: ns of CPU time each with nothing attached, and what is added to it"
            yield Table(title, ("", bare, *others), rows)
            rows = [[w.title, "1.00", *(str(self.grown(w, v)) for v in others)] for w in loops]
            title = "Cost of a call: CPU time, nothing attached = 1.00 (lower is better)"
            yield Table(title, ("", bare, *others), rows)
        if real := [work for work in self.plan.loads if not work.loop]:
            rows = [[w.title, "1.00", *(str(self.kept(w, v)) for v in others), self.speed(w)] for w in real]
            title = "Work per CPU-second of the load's own processes, nothing attached = 1.00 (higher is better)"
            yield Table(title, ("", bare, *others, "1.00 is"), rows)
        columns = [(v.name, role) for v in self.plan.variants for role in self.roles(v)]
        if columns:
            head = ("", *(f"{variant} {role}".replace("forwarding wonted", "wonted") for variant, role in columns))
            for title, late in (("while the load ran", 0), ("until it had caught up, over the load's time", 1)):
                rows = [
                    [w.title, *(self.used(w, *column, late).text(1) for column in columns)] for w in self.plan.loads
                ]
                yield Table(f"CPU of what is attached, % of a core: {title}", head, rows)

    def roles(self, variant: Variant) -> list[str]:
        return list(next(iter(self.samples.values()))[variant.name][0].own)

    def used(self, work: Work, variant: str, role: str, late: int = 0) -> Spread:
        samples = self.samples[work.name][variant]
        return Spread.of(100 * (one.own[role] + late * one.late[role]) / one.wall_s for one in samples)

    def median_ns(self, work: Work) -> float:
        return 1e9 * Spread.of(self.each(work, VARIANTS[0].name)).median

    def speed(self, work: Work) -> str:
        speed = 1 / Spread.of(self.each(work, VARIANTS[0].name)).median
        return f"{speed:,.{0 if speed >= 100 else 1}f} {work.unit}/CPU-s"

    def grown(self, work: Work, variant: str) -> Spread:
        return figures.ratios(self.each(work, VARIANTS[0].name), self.each(work, variant))

    def added(self, work: Work, variant: str) -> str:
        return figures.extra(*([1e9 * x for x in self.each(work, v)] for v in (VARIANTS[0].name, variant))).text(
            0, sign="+"
        )

    def kept(self, work: Work, variant: str) -> Spread:
        return figures.ratios(self.each(work, variant), self.each(work, VARIANTS[0].name))

    def goals(self) -> Iterator[Result]:
        for work in self.plan.loads:
            known = self.samples[work.name]
            if work.name == "getppid" and {"empty", "enforcing"} <= set(known):
                columns = (self.each(work, name) for name in (VARIANTS[0].name, "empty", "enforcing"))
                if (times := figures.multiple(*columns)) is None:
                    yield Result("cost", "getppid: extra cost in empty raw tracepoints", 0, "x", note="lost in noise")
                else:
                    yield goal("getppid: extra cost in empty raw tracepoints", times, "x", FLOOR_GOAL, below=True)
            if not work.loop and "enforcing" in known:
                yield goal(
                    f"{work.title}: work per CPU-second, enforcing", self.kept(work, "enforcing"), "x", WORK_GOAL
                )
                probe = self.used(work, "enforcing", "probe")
                yield goal(f"{work.title}: the probe, enforcing", probe, "% of a core", PROBE_GOAL, below=True)

    def conditions(self) -> Iterator[str]:
        samples = [one for by in self.samples.values() for these in by.values() for one in these]
        used = Spread.of(100 * one.others / one.wall_s for one in samples).text(0)
        yield f"The rest of the machine used {used} % of a core while the loads ran"
        if crowded := sum(not one.alone for one in samples):
            yield f"In {crowded} of {len(samples)} runs, programs of others were attached too: their ratios say little"


def busy() -> float:
    """CPU seconds that the machine's CPUs were not idle, since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, fields)
    return (user + nice + system + irq + softirq) / TICKS


def goal(name: str, spread: Spread, unit: str, limit: float, *, below: bool = False) -> Result:
    met = spread.median <= limit if below else spread.median >= limit
    text = f"{'<=' if below else '>='} {limit:g}"
    return Result(
        "cost", name, spread.median, unit, f"{spread.low:.2f}..{spread.high:.2f} of {spread.count}", "", text, met
    )


def progress(text: str) -> None:
    print(f"   {text}", file=sys.stderr, flush=True)


def measure(plan: Plan) -> Iterator[Result | Table | str]:
    for one in (*plan.loads, *plan.variants):
        if lacking := missing(one):
            yield f"{one.title} is left out: {', '.join(lacking)} not installed"
    loads, beside = ([one for one in all_ if not missing(one)] for all_ in (plan.loads, plan.variants))
    if not loads:
        return
    cost = Cost(replace(plan, loads=loads, variants=beside))
    cost.measure()
    yield from cost.left_out
    if not cost.plan.loads or cost.plan.variants[0] is not VARIANTS[0]:
        return
    yield from cost.tables()
    yield from cost.goals()
    yield from cost.conditions()
    for text, times in cost.notes.items():
        yield f"{text[0].upper()}{text[1:]} ({times} of {plan.rounds * len(cost.plan.variants)} runs)"


def missing(one: Work | Variant) -> list[str]:
    """Programs that it needs and that are not here."""
    return [program for program in one.needs if not shutil.which(program)]
