"""The promise on fleets that nobody tuned for, in seconds; `wonted evaluate simulate` does the same at length."""

import random

import pytest

from models import danger
from models.evaluation.acts import ACTS, Act
from models.evaluation.fleet import DAY, KINDS, STEP, Cron, Deploys, Drift, Life, Runner
from models.evaluation.seen import SeenSet
from models.evaluation.simulate import ENFORCE, Setting, fleet

WEEKS = ENFORCE / 7


@pytest.mark.parametrize("kind", [Cron, Deploys, Drift])
def test_false_alerts_stay_within_the_budget_and_an_act_that_is_on_no_list_is_told(kind: type[Life]):
    """Also where dangerous places and tools weigh no more than others; one alert in all is within any budget."""
    wanted = [Setting(0.1), Setting(1.0, danger_weights=False)]

    rows = list(fleet([kind], wanted, workloads=2))

    for row in rows:
        assert row.false_per_week <= max(row.budget, 1 / WEEKS / row.workloads), row
    assert (2, 2) == (rows[1].detected, rows[1].enforcing), rows


@pytest.mark.parametrize(
    ("kind", "exact", "patterns"),
    [(Life, (0, 0), (0, 0)), (Cron, (7, 8), (0.4, 0.6)), (Deploys, (10, 20), (7, 15)), (Drift, (1, 5), (1, 5))],
)
def test_simple_seen_sets_fail_on_them_as_they_do_elsewhere(
    kind: type[Life], exact: tuple[float, float], patterns: tuple[float, float]
):
    """Else the simulator is too kind. The trial: 0, 7.5, 15 and 2.5 a week, and with patterns 0, .5, 11.3 and 2.5."""
    told = [0.0, 0.0]
    workloads = 4
    for image in range(workloads):
        sets = SeenSet(patterns=False), SeenSet(patterns=True)
        for step, bundle in enumerate(kind(image, 0).live(0, (14 + ENFORCE) * DAY)):
            for which, seen in enumerate(sets):
                new = sum(map(seen.new, bundle))
                told[which] += new if step * STEP >= 14 * DAY else 0

    weekly = [count / workloads / WEEKS for count in told]

    assert exact[0] <= weekly[0] <= exact[1], weekly
    assert patterns[0] <= weekly[1] <= patterns[1], weekly


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_no_act_is_on_the_danger_list(kind: type[Life], act: Act):
    """What the simulation measures is what the models learned, not what the list knows."""
    life = kind(1, 1)

    hits = [danger.match(event) for event in act(life, random.Random(1))]

    assert hits and all(hit is None for hit in hits)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_life_is_the_same_for_the_same_seed_and_another_for_another(kind: type[Life]):
    first, same, other = (list(kind(3, seed).live(0, 2 * DAY)) for seed in (1, 1, 2))

    assert first == same
    assert first != other


def test_what_was_done_while_it_learned_is_told_when_it_is_done_again():
    """Poisoning: the intruder was there before, once, on one of two replicas. Nine of ten repeats are told."""
    rows = list(fleet([Life, Cron], [Setting(1.0, poisoned=True)], workloads=10, learn=14, enforce=1, replicas=2))

    assert 20 == sum(row.enforcing for row in rows)
    assert sum(row.detected for row in rows) >= 0.9 * 20, rows


def test_a_runner_that_always_makes_new_programs_is_quiet():
    (row,) = fleet([Runner], [Setting(1.0)], workloads=1, learn=8, enforce=7)

    assert row.exact_per_week > 1000
    assert row.false_per_week <= 1 and row.detected == 1
    assert row.bytes_per_workload <= 32 << 10
