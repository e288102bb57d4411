"""Detectors of River that a config names."""

from pathlib import Path

import numpy as np
import pytest

from config.load import ConfigError, load
from config.schema import Detector, Settings
from models.detectors import Running, make, valid
from models.rates import METRICS, TRUSTED, Closed, Fleet
from models.store import Baselines
from pipeline.settings import CHECKS
from tests.models.test_rates import APP, DAY, USUAL, minute_windows
from tests.models.world import Feed, World

NAMES = sorted(valid())


def config(tmp_path: Path, text: str) -> list[str]:
    """The problems of a config file with these detectors."""
    file = tmp_path / "wonted.yaml"
    file.write_text(f"models:\n  detectors:\n{text}")
    try:
        load(file, environ={}, checks=CHECKS)
    except ConfigError as error:
        return [str(problem).replace(str(file), "FILE") for problem in error.problems]
    return []


# --- the config ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_detector_of_river_can_be_named(tmp_path: Path, name: str):
    assert [] == config(tmp_path, f"    - name: {name}\n")
    assert [] == config(tmp_path, f"    - name: {name.removeprefix('anomaly.')}\n")


def test_a_wrong_name_lists_the_right_ones_the_nearest_first(tmp_path: Path):
    (problem,) = config(tmp_path, "    - {name: anomaly.HalfSpaceTree}\n")

    assert problem.startswith("FILE:3:14: models.detectors[0].name: no such detector: 'anomaly.HalfSpaceTree'; did you")
    assert "did you mean anomaly.HalfSpaceTrees? There are anomaly.HalfSpaceTrees, " in problem
    assert all(name in problem for name in NAMES)


def test_a_wrong_parameter_lists_those_of_its_class(tmp_path: Path):
    (problem,) = config(tmp_path, "    - name: anomaly.HalfSpaceTrees\n      parameters:\n        trees: 10\n")

    assert problem.startswith("FILE:5:9: models.detectors[0].parameters.trees: anomaly.HalfSpaceTrees has no such")
    assert "did you mean n_trees? It has n_trees, height, window_size, limits, seed" in problem


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("{n_trees: many}", "TypeError"),
        ("{n_trees: 100, height: 15}", "more than 100,000 nodes"),
        ("{window_size: 1000000000}", "at most 100,000"),
    ],
)
def test_what_river_cannot_make_is_a_config_error(tmp_path: Path, parameters: str, reason: str):
    (problem,) = config(tmp_path, f"    - {{name: HalfSpaceTrees, parameters: {parameters}}}\n")

    assert problem.startswith("FILE:3:") and reason in problem


def test_a_wrong_metric_lists_the_right_ones(tmp_path: Path):
    (problem,) = config(tmp_path, "    - {name: HalfSpaceTrees, metrics: [exec]}\n")

    assert "models.detectors[0].metrics[0]" in problem and "'execs'" in problem and "'ports'" in problem


@pytest.mark.parametrize("name", ["QuantileFilter", "PredictiveAnomalyDetection", "base"])
def test_what_needs_another_detector_or_learns_while_it_scores_is_refused(tmp_path: Path, name: str):
    (problem,) = config(tmp_path, f"    - {{name: anomaly.{name}}}\n")

    assert "no such detector" in problem


# --- laws ------------------------------------------------------------------------------------------------------------


def running(name: str) -> Running:
    cls = valid()[name]
    import inspect

    seed = {"seed": 1} if "seed" in inspect.signature(cls).parameters else {}
    (made,) = make([Detector(name=name, parameters=seed)], "shop/web")
    return made


def deviations(random: np.random.Generator) -> np.ndarray:
    return random.standard_normal(len(METRICS)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_scoring_changes_nothing_and_is_a_number(name: str):
    random, one, two = np.random.default_rng(1), running(name), running(name)
    for minute in range(120):
        usual = deviations(random)
        for model in (one, two):
            model.learn(minute, usual, model.score(usual))
        one.score(deviations(random))

    for _ in range(20):
        x = deviations(random) * 9
        assert np.isfinite(one.score(x)) and one.score(x) == two.score(x)


@pytest.mark.parametrize("name", NAMES)
def test_before_a_day_was_seen_nothing_is_told(name: str):
    model, far = running(name), np.full(len(METRICS), 60, np.float32)
    random = np.random.default_rng(2)
    for minute in range(200):
        model.beyond(1000.0, Closed(0, minute, far, deviations(random)))

    assert float("inf") == model.expected(200, 1e9)


def test_the_budget_holds_and_a_jump_is_told():
    """Half-space trees with their defaults see most of such jumps at a budget of 3, and none at 1: their scores
    end at 1, and so are never far beyond the usual. What is told of normal minutes in three weeks
    (of one minute in five) stays within the budget."""
    random, told, found = np.random.default_rng(3), [], 0
    model = running("anomaly.HalfSpaceTrees")
    for minute in range(0, 21 * 1440, 5):
        usual = deviations(random)
        if (hit := model.beyond(3.0, Closed(0, minute, usual, usual))) is not None and minute > TRUSTED:
            told.append(hit)
        if minute > 7 * 1440 and minute % 1440 == 0:
            jumped = usual.copy()
            jumped[[METRICS.index("execs"), METRICS.index("connects")]] += 14
            found += model.expected(minute, model.score(jumped)) <= 3.0

    assert len(told) <= 9
    assert found >= 8


# --- beside a workload -----------------------------------------------------------------------------------------------


def test_it_runs_beside_the_workloads_that_match_and_names_itself_and_three_metrics():
    settings = Settings.model_validate(
        {
            "learn": {"min": "1d"},
            "models": {
                "detectors": [
                    {
                        "name": "HalfSpaceTrees",
                        "parameters": {"seed": 1, "height": 6},
                        "workloads": "shop/*",
                        "metrics": ["execs", "connects", "calls", "bytes_out"],
                        "false_alerts_per_week": 3,
                    }
                ]
            },
        }
    )
    world, feed, other = World(), Feed(settings), World("other")
    minute_windows(feed, world, 0, 4 * 1440, **USUAL)
    feed.give([other.at(4 * DAY).read(APP, "/x")])
    before = len(feed.findings)

    minute_windows(feed, world, 4 * 1440, 4 * 1440 + 3, **{name: n * 6 for name, n in USUAL.items()})
    found = [f for f in feed.findings[before:] if f.value == "rate HalfSpaceTrees"]

    assert 1 == len(found) and ("rates", "rate") == (found[0].detector, found[0].kind)
    assert "HalfSpaceTrees scores" in found[0].why and 3 == len(found[0].evidence["furthest"])
    assert found[0].expected_per_week <= found[0].budget == 3
    assert [] == feed.baselines._all["other"].detectors
    fresh = Baselines(settings)
    fresh.restore(feed.baselines.snapshot(world.workload))
    assert 0 == fresh._all[world.workload].detectors[0].seen


def test_nobody_who_names_no_detector_pays_for_them():
    """River's detectors cost 112 MB: the modules that load them are not there."""
    import subprocess
    import sys

    code = (
        "import sys, pipeline.settings, models.store; from config.schema import Settings;"
        "[check(Settings()) for check in pipeline.settings.CHECKS]; models.store.Baselines(Settings());"
        "print([m for m in ('river.anomaly', 'river.drift') if m in sys.modules])"
    )
    assert "[]\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_fleet_tells_minutes_only_of_rows_that_are_followed():
    fleet = Fleet(2)
    rows = np.array([fleet.take(), fleet.take()])
    fleet.follow.add(int(rows[1]))
    for minute in range(3):
        fleet.tick(rows, np.full(2, minute, np.int32), np.ones((2, len(METRICS)), np.float32), np.ones(2, np.bool_))

    assert [(int(rows[1]), 0), (int(rows[1]), 1)] == [(closed.row, closed.minute) for closed in fleet.closed]
