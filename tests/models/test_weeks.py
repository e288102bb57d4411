"""The promise: at most the budget of false alerts per workload and week, and the attack is still seen."""

import pytest

from config.schema import Settings
from models.finding import Decision
from tests.models.scenarios.weeks import DAY, LIVES, Life
from tests.models.world import SECOND, START, Feed

SEEDS = (1, 2, 3)
LEARN, ENFORCE = 14, 28


def lived(kind: type[Life], seed: int, budget: float) -> tuple[int, int, str]:
    """(false alerts in four weeks, findings of the attack, mode) of one workload."""
    life = kind(seed)
    feed = Feed(Settings.model_validate({"models": {"false_alerts_per_week": budget}}))
    feed.give(life.live(0, LEARN * DAY))
    mode = feed.baselines.summary(life.world.workload)["mode"]
    if mode == "learning":
        feed.baselines.decide(Decision("d", life.world.time, "enforce", life.world.workload))
    found = feed.give(life.live(LEARN * DAY, (LEARN + ENFORCE) * DAY))
    alerts = {(f.event.time - START) // (600 * SECOND) for f in found if not f.would_alert}
    attack = feed.give(life.attack((LEARN + ENFORCE) * DAY + 60))
    return len(alerts), len(attack), mode


@pytest.mark.parametrize("budget", [1.0, 0.1])
@pytest.mark.parametrize("kind", LIVES)
def test_false_alerts_stay_within_the_budget_and_the_attack_is_told(kind: type[Life], budget: float):
    runs = [lived(kind, seed, budget) for seed in SEEDS]

    weeks = len(SEEDS) * ENFORCE / 7
    allowed = budget * weeks
    assert sum(alerts for alerts, _, _ in runs) <= max(1, allowed), runs
    assert all(attack for _, attack, _ in runs), runs
    if budget == 1.0:
        assert {"enforcing"} == {mode for _, _, mode in runs}


def test_a_stationary_workload_ends_learning_on_evidence_in_days_not_weeks():
    life = LIVES[0](1)
    feed = Feed(Settings())

    feed.give(life.live(0, 2 * DAY))
    early = feed.baselines.summary(life.world.workload)
    feed.give(life.live(2 * DAY, 8 * DAY))

    assert ("learning", True) == (early["mode"], 0 < early["progress"] < 1)
    assert early["eta_s"] is not None and early["eta_s"] < 8 * DAY
    assert "enforcing" == feed.baselines.summary(life.world.workload)["mode"]
