"""Detectors of River that a config names: which there are, whether they can be made, and how their scores are judged.

Each looks at the minutes of the workloads it is for. A metric is handed over as 1 / (1 + e^(-d/4)), d being its
deviation from what is usual at that hour: 0..1, usual is 0.5, as HalfSpaceTrees and OneClassSVM want it. Those that
want a target besides (GaussianScorer, StandardAbsoluteDeviation) exist once per metric, and
the highest score counts. Scores of all go through the same tail as the rates, so that the budget holds.

They live in memory only. River's models can be stored as pickles alone, and whoever can write to a topic could run code
by one. After a restart they learn for a day again and say nothing meanwhile.
"""

import difflib
import inspect
from collections.abc import Iterator
from fnmatch import fnmatchcase
from math import expm1, isfinite, log, sqrt
from typing import Any

import numpy as np

from config.schema import Detector, Settings
from models import tail
from models.rates import BLOCK, GATE_LOUD, MEMORY, METRICS, TRUSTED, WEEK, Closed, furthest

BOUNDED = ("HalfSpaceTrees", "GaussianScorer")
"""Their scores end at 1: -log(1 - score) does not."""
LEFT_OUT = ("PredictiveAnomalyDetection",)
"""Its scoring also learns, and is no number while its model has no forecast."""
FADING = 0.001
LARGEST = 100_000
"""No parameter is larger, and no forest has more nodes: every workload has a detector of its own."""
Wrong = tuple[tuple[str | int, ...], bool, str]
"""(path of the setting, whether its name is wrong and not its value, what is wrong)."""


def valid() -> dict[str, Any]:
    """Name -> class. Filters are left out: they are made of another detector, which a config cannot give."""
    from river import anomaly, base

    kinds = (base.AnomalyDetector, base.SupervisedAnomalyDetector)
    found = {name: getattr(anomaly, name) for name in sorted(anomaly.__all__)}
    return {f"anomaly.{name}": made for name, made in found.items() if issubclass(made, kinds) and name not in LEFT_OUT}


def _full(name: str) -> str:
    return name if name.startswith("anomaly.") else f"anomaly.{name}"


def check(settings: Settings) -> Iterator[Wrong]:
    """What is wrong with `models.detectors`: names, parameters, and what River says when they are made."""
    if not settings.models.detectors:
        return
    names = valid()
    for index, detector in enumerate(settings.models.detectors):
        path = ("models", "detectors", index)
        made = names.get(_full(detector.name))
        if made is None:
            near = difflib.get_close_matches(_full(detector.name), names, len(names), 0.6)
            there = ", ".join([*near, *(name for name in names if name not in near)])
            mean = f"did you mean {near[0]}? " if near else ""
            yield (*path, "name"), False, f"no such detector: {detector.name!r}; {mean}There are {there}"
            continue
        parameters = list(inspect.signature(made).parameters)
        unknown = [name for name in detector.parameters if name not in parameters]
        for name in unknown:
            near = difflib.get_close_matches(name, parameters, 1, 0.6)
            mean = f"did you mean {near[0]}? " if near else ""
            yield (
                (*path, "parameters", name),
                True,
                f"{_full(detector.name)} has no such parameter; {mean}It has {', '.join(parameters)}",
            )
        if unknown:
            continue
        if (reason := _refusal(made, detector)) is not None:
            yield (*path, "parameters"), False, f"{_full(detector.name)} cannot be made of this: {reason}"


def _refusal(made: Any, detector: Detector) -> str | None:
    """Makes one and shows it a few minutes."""
    for name, value in detector.parameters.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) > LARGEST and name != "seed":
            return f"{name}: at most {LARGEST:,}"
    if made.__name__ == "HalfSpaceTrees":
        trees, height = detector.parameters.get("n_trees", 10), detector.parameters.get("height", 8)
        if isinstance(trees, int) and isinstance(height, int) and (height > 20 or trees * 2 ** (height + 1) > LARGEST):
            return f"n_trees {trees} of height {height} have more than {LARGEST:,} nodes"
    try:
        running = Running(detector, made)
        for step in range(4):
            score = running.score(np.full(len(METRICS), step / 2, np.float32))
            if not isfinite(score):
                return f"it scores {score}"
            running.learn(step, np.full(len(METRICS), step / 2, np.float32), score)
    except Exception as error:  # whatever River makes of a parameter is the reason
        return f"{type(error).__name__}: {error}"
    return None


def make(detectors: list[Detector], workload: str) -> "list[Running]":
    """Those that look at this workload, new. Of a config that `check` found right."""
    wanted = [d for d in detectors if fnmatchcase(workload, d.workloads)]
    if not wanted:
        return []
    names = valid()
    return [Running(detector, names[_full(detector.name)]) for detector in wanted]


class Running:
    """One detector beside one workload: score, then decide, then learn.

    The tail keeps the highest score of each ten minutes, in deviations from the usual score.
    """

    def __init__(self, detector: Detector, made: Any) -> None:
        self.detector, self.made = detector, made
        self.name = made.__name__
        self.columns = [METRICS.index(metric) for metric in detector.metrics]
        self.supervised = "y" in inspect.signature(made.learn_one).parameters
        self.restart()

    def restart(self) -> None:
        copies = len(self.columns) if self.supervised else 1
        self.models = [self.made(**self.detector.parameters) for _ in range(copies)]
        self.mean = self.variance = 0.0
        self.seen = 0
        self.first = self.block = -1
        self.worst = -1.0
        self.peaks = np.full((1, tail.KEPT), -1.0, np.float32)
        self.days = np.zeros(tail.KEPT, np.int64)
        self.loud = 0

    def _features(self, deviations: tail.Floats) -> dict[str, float]:
        out: dict[str, float] = {}
        for name, at in zip(self.detector.metrics, self.columns, strict=True):
            out[name] = 1 / (2 + expm1(-max(-100.0, min(100.0, float(deviations[at]))) / 4))
        return out

    def score(self, deviations: tail.Floats) -> float:
        """River's own score of a minute, by its deviations (in the order of METRICS). Changes nothing."""
        x = self._features(deviations)
        if not self.supervised:
            return float(self.models[0].score_one(x))
        return max(float(model.score_one(x, y)) for model, y in zip(self.models, x.values(), strict=True))

    def _deviation(self, score: float) -> float:
        return (self._unbounded(score) - self.mean) / sqrt(max(self.variance, 1e-6))

    def _unbounded(self, score: float) -> float:
        return -log(max(1 - score, 1e-9)) if self.name in BOUNDED else score

    def expected(self, minute: int, score: float) -> float:
        """Expected minutes per week that score at least so; infinite before a day was seen."""
        if self.first < 0 or minute - self.first < TRUSTED:
            return float("inf")
        value = np.array([max(self._deviation(score), 0.0)], np.float32)
        weeks = np.array([min(minute - self.first, MEMORY * 1440) / WEEK], np.float32)
        return float(tail.per_week(tail.fit(self.peaks), value, weeks)[0])

    def learn(self, minute: int, deviations: tail.Floats, score: float) -> None:
        x = self._features(deviations)
        if self.supervised:
            for model, y in zip(self.models, x.values(), strict=True):
                model.learn_one(x, y)
        else:
            self.models[0].learn_one(x)
        self.first = minute if self.first < 0 else self.first
        if minute // BLOCK != self.block:
            self._end_block(minute // 1440)
            self.block = minute // BLOCK
        self.worst = max(self.worst, self._deviation(score) if self.seen else 0.0)
        fading = max(FADING, 1 / (self.seen + 1))
        difference = self._unbounded(score) - self.mean
        self.mean += fading * difference
        self.variance = (1 - fading) * (self.variance + fading * difference * difference)
        self.seen += 1

    def _end_block(self, today: int) -> None:
        self.peaks[0, today - self.days > MEMORY] = -1.0
        slot = int(self.peaks[0].argmin())
        if self.worst > self.peaks[0, slot]:
            self.peaks[0, slot], self.days[slot] = self.worst, today
        self.worst = -1.0

    def beyond(self, budget: float, closed: Closed) -> tuple[float, float] | None:
        """(score, expected per week) of a minute that is at or below the budget; any other is learned. A level that
        stays so is learned anew."""
        score = self.score(closed.deviations)
        expected = self.expected(closed.minute, score)
        if expected > budget:
            self.loud = 0
            self.learn(closed.minute, closed.deviations, score)
            return None
        self.loud += 1
        if self.loud > GATE_LOUD:
            self.restart()
            return None
        return score, expected

    def furthest(self, closed: Closed) -> list[int]:
        """The three of its metrics that are furthest from usual."""
        return furthest(closed.deviations, self.columns)
