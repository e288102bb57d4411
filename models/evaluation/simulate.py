"""Does the promise hold? Fleets of simulated workloads through the same code as live, beside two simple seen-sets.

Each workload lives LEARN days, then ENFORCE days in which whatever is told is a false alert, but for one act of an
intruder at a random time. Every setting sees the same events.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from config.schema import Settings
from models.evaluation.acts import ACTS, Act
from models.evaluation.fleet import DAY, STEP, Life
from models.evaluation.scene import SECOND, START, batch
from models.evaluation.seen import SeenSet
from models.finding import Finding
from models.store import Baselines

LEARN, ENFORCE = 14, 28
"""Days."""
INCIDENT = 600 * SECOND
"""Alerts of one workload within this belong to one incident."""


class Setting(NamedTuple):
    budget: float
    siblings: int = 0
    danger_weights: bool = True
    poisoned: bool = False
    """The intruder did the same once while it learned."""


class Row(NamedTuple):
    """One kind of workload under one setting."""

    kind: str
    budget: float
    siblings: int
    danger_weights: bool
    poisoned: bool
    workloads: int
    false_per_week: float
    """Alerts on normal behaviour per workload and week; each fingerprint of an incident is one."""
    incidents_per_week: float
    worst_per_week: float
    """The same of the noisiest workload."""
    attacks: int
    detected: int
    enforcing: int
    """Workloads whose learning ended on evidence, not by the clock."""
    bytes_per_workload: int
    """Of the largest snapshot."""
    exact_per_week: float
    """What a set of exact values would have told, per workload and week."""
    patterns_per_week: float
    """The same with paths through patterns."""
    missed: tuple[str, ...]
    """Names of the acts that were not told."""


class Told:
    """What people were told of one workload: each fingerprint once per incident."""

    def __init__(self) -> None:
        self.alerts = self.incidents = 0
        self._opened = -INCIDENT - 1
        self._prints: set[str] = set()
        self.what: list[str] = []

    def add(self, finding: Finding) -> None:
        if finding.would_alert:
            return
        if finding.event.time - self._opened > INCIDENT:
            self._opened = finding.event.time
            self._prints = set()
            self.incidents += 1
        if finding.fingerprint not in self._prints:
            self._prints.add(finding.fingerprint)
            self.alerts += 1
            self.what.append(finding.what)


class Run:
    """One workload under one setting."""

    def __init__(self, setting: Setting, baselines: Baselines) -> None:
        self.setting, self.baselines = setting, baselines
        self.told = Told()
        self.detected = False


class Outcome(NamedTuple):
    runs: list[Run]
    workload: str
    act: str
    exact: int
    patterns: int


def settings(budget: float, learn_days: int) -> Settings:
    span = f"{learn_days}d"
    return Settings.model_validate({"learn": {"min": span, "max": span}, "models": {"false_alerts_per_week": budget}})


def fleet(
    kinds: Sequence[type[Life]],
    wanted: Sequence[Setting],
    workloads: int = 10,
    seed: int = 1,
    learn: int = LEARN,
    enforce: int = ENFORCE,
    replicas: int = 0,
) -> Iterator[Row]:
    """A row per kind and setting, as they are done. `learn`, `enforce`: days. `replicas`: 0: as each kind has them."""
    for place, kind in enumerate(kinds):
        outcomes = []
        for i in range(workloads):
            image = seed * 1000 + i
            act = ACTS[(seed + 7 * (place * workloads + i)) % len(ACTS)]
            outcomes.append(lived(kind, image, wanted, act, learn, enforce, replicas))
        for number, setting in enumerate(wanted):
            yield _row(kind.kind, setting, number, outcomes, enforce)


def lived(
    kind: type[Life], image: int, wanted: Sequence[Setting], act: Act, learn: int, enforce: int, replicas: int = 0
) -> Outcome:
    """One workload of an image, under every setting at once."""
    life = kind(image, 0, replicas)
    runs = _runs(wanted, kind, image, learn)
    sets = SeenSet(patterns=False), SeenSet(patterns=True)
    news = [0, 0]
    begin = learn * DAY
    rng = random.Random(f"act/{kind.kind}/{image}")
    intrusion = begin + rng.randrange(enforce * DAY // STEP - 1) * STEP
    poisoning = rng.randrange(2 * begin // 10 // STEP, begin // STEP) * STEP
    number = 0
    for step, bundle in enumerate(life.live(0, begin + enforce * DAY)):
        t = step * STEP
        number += 1
        flush = batch(number, life.scene.workload, bundle, START + (t + STEP - 50) * SECOND)
        for run in runs:
            found = run.baselines.apply(flush, (0, number))
            if t >= begin:
                for finding in found:
                    run.told.add(finding)
        for which, known in enumerate(sets):
            new = sum(known.new(event) for event in bundle)
            news[which] += new if t >= begin else 0
        if t in (poisoning, intrusion):
            number += 1
            life.scene.at(t + STEP - 40)
            events = act(life, random.Random(f"same/{kind.kind}/{image}"))
            done = batch(number, life.scene.workload, events, START + (t + STEP - 30) * SECOND)
            for run in runs:
                if t == intrusion:
                    run.detected = any(not f.would_alert for f in run.baselines.apply(done, (0, number)))
                elif run.setting.poisoned:
                    run.baselines.apply(done, (0, number))
    return Outcome(runs, life.scene.workload, act.__name__, news[0], news[1])


def _runs(wanted: Sequence[Setting], kind: type[Life], image: int, learn: int) -> list[Run]:
    """A worker for each setting; one with siblings has watched as many workloads of the image for as long before."""
    families: dict[int, dict[str, bytes]] = {}
    runs = []
    for setting in wanted:
        baselines = Baselines(settings(setting.budget, learn), setting.danger_weights, share=setting.siblings > 0)
        if setting.siblings and setting.siblings not in families:
            families[setting.siblings] = _family(kind, image, setting.siblings, learn)
        for state in families.get(setting.siblings, {}).values():
            baselines.restore_image(state)
        runs.append(Run(setting, baselines))
    return runs


def _family(kind: type[Life], image: int, siblings: int, learn: int) -> dict[str, bytes]:
    """What so many workloads of an image learned, as its snapshot. Their time ends where the new workload's begins."""
    baselines = Baselines(settings(1.0, learn))
    for seed in range(1, siblings + 1):
        life = kind(image, seed)
        for number, bundle in enumerate(life.live(0, learn * DAY)):
            flush = batch(number, life.scene.workload, bundle, START + ((number + 1) * STEP - 50) * SECOND)
            baselines.apply(flush, (seed, number))
    return {name: state for name in baselines.images.names() if (state := baselines.snapshot_image(name)) is not None}


def _row(kind: str, setting: Setting, number: int, outcomes: Sequence[Outcome], enforce: int) -> Row:
    runs = [outcome.runs[number] for outcome in outcomes]
    if faults := sum(run.baselines.faults for run in runs):
        raise RuntimeError(f"the models failed on {faults} events of {kind}: these figures would mean nothing")
    weeks = enforce / 7
    n = len(outcomes)
    names = [outcome.workload for outcome in outcomes]
    return Row(
        kind=kind,
        budget=setting.budget,
        siblings=setting.siblings,
        danger_weights=setting.danger_weights,
        poisoned=setting.poisoned,
        workloads=n,
        false_per_week=round(sum(run.told.alerts for run in runs) / n / weeks, 4),
        incidents_per_week=round(sum(run.told.incidents for run in runs) / n / weeks, 4),
        worst_per_week=max(run.told.alerts for run in runs) / weeks,
        attacks=n,
        detected=sum(run.detected for run in runs),
        enforcing=sum(run.baselines.summary(w)["mode"] == "enforcing" for run, w in zip(runs, names, strict=True)),
        bytes_per_workload=max(len(run.baselines.snapshot(w)) for run, w in zip(runs, names, strict=True)),
        exact_per_week=round(sum(o.exact for o in outcomes) / n / weeks, 2),
        patterns_per_week=round(sum(o.patterns for o in outcomes) / n / weeks, 2),
        missed=tuple(o.act for o, run in zip(outcomes, runs, strict=True) if not run.detected),
    )
