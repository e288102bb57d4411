"""What must hold for the sequence model, whatever it is shown."""

import copy
import itertools
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.conformal import Calibrated, Conformal
from models.evaluation import traces
from models.evaluation.measures import auc, detection, threshold
from models.nearest import Nearest, profile
from models.sequences import Sequences, grams, numbers
from tests.models.traces import unpack

KIB_32 = 32 * 1024
Trace = list[int]
traces_ = st.lists(st.integers(0, 600), max_size=60)


def program(seed: int, length: int = 300) -> Trace:
    """A made-up program: a loop over a few calls of its own, now and then another way through it."""
    rng = random.Random(seed)
    loop = [rng.randrange(335) for _ in range(rng.randrange(4, 20))]
    out = [9, 10, 257, 0, 5, 9, 3]
    while len(out) < length:
        out += loop if rng.random() < 0.9 else loop[::-1]
    return out


def trained(*learned: Trace) -> Sequences:
    model = Sequences()
    for calls in learned:
        model.learn_one({"calls": calls})
    return model


@given(st.lists(traces_, max_size=5), traces_)
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_score_lies_between_nothing_and_one(learned: list[Trace], calls: Trace) -> None:
    assert 0 <= trained(*learned).score_one({"calls": calls}) <= 1


@given(st.lists(traces_, min_size=1, max_size=4), st.lists(st.integers(0, 600), min_size=1, max_size=60))
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_trace_that_is_known_scores_lowest(learned: list[Trace], calls: Trace) -> None:
    model = trained(*learned, calls)

    assert 0.0 == model.score_one({"calls": calls})


def test_scoring_changes_nothing() -> None:
    model = trained(program(1), program(2))
    before = msgspec.msgpack.encode(model.dump())

    first = [model.score_one({"calls": program(i)}) for i in range(20)]
    again = [model.score_one({"calls": program(i)}) for i in range(20)]

    assert (first, before) == (again, msgspec.msgpack.encode(model.dump()))


def test_what_repeats_gets_less_unusual() -> None:
    model, calls = trained(program(1)), program(7)

    before = model.score_one({"calls": calls})
    model.learn_one({"calls": program(7, 200)})
    like = model.score_one({"calls": calls})
    model.learn_one({"calls": calls})

    assert before > like > model.score_one({"calls": calls}) == 0.0


def test_the_order_of_what_was_learned_does_not_matter_while_there_is_room() -> None:
    """Scores may differ by the rounding of weights, no more."""
    learned = [program(i) for i in range(4)]
    scores = [
        trained(*(learned[i] for i in order)).score_one({"calls": program(9)})
        for order in itertools.permutations(range(4))
    ]

    assert max(scores) - min(scores) < 0.01


def test_unusual_calls_unusual_order_and_unusual_amount_are_each_seen() -> None:
    usual = [0, 1, 2, 3, 4, 5, 6, 7] * 30
    model = trained(usual)

    calls, order, amount = usual + [101] * 3, sorted(usual), usual + [3] * 2000

    assert all(model.score_one({"calls": x}) > 0.05 for x in (calls, order, amount))


def test_little_in_much_is_seen() -> None:
    """A shell in a thread that went on for an hour."""
    usual = program(1, 50_000)
    model = trained(usual)

    assert model.score_one({"calls": usual[:20_000] + [41, 42, 33, 33, 33, 59] * 5 + usual[20_000:]}) > 0.2


def test_a_clone_starts_empty_and_a_copy_goes_its_own_way() -> None:
    model = trained(program(1))
    clone, twin = model.clone(), copy.deepcopy(model)
    twin.learn_one({"calls": program(2)})

    assert (0, 1, 2) == (len(clone.known), len(model.known), len(twin.known))
    assert model.score_one({"calls": program(2)}) > 0 == twin.score_one({"calls": program(2)})


def test_a_state_that_is_written_and_read_scores_and_goes_on_the_same() -> None:
    model = trained(*(program(i) for i in range(50)))
    twin = Sequences()
    twin.load(msgspec.msgpack.decode(msgspec.msgpack.encode(model.dump())))

    for i in range(40, 80):
        assert model.score_one({"calls": program(i)}) == twin.score_one({"calls": program(i)})
        model.learn_one({"calls": program(i)})
        twin.learn_one({"calls": program(i)})
    assert model.dump() == twin.dump()


@pytest.mark.parametrize("kind", ["programs", "noise", "wide"])
def test_the_state_stays_below_32_kib_on_the_wire(kind: str) -> None:
    """Whatever comes, and however much: profiles that do not deflate are fewer."""
    rng = np.random.default_rng(3)
    model, sizes = Sequences(), []
    for i in range(1500):
        if kind == "programs":
            calls = np.array(program(i))
        elif kind == "noise":
            calls = rng.integers(0, 512, 300)
        else:
            calls = np.repeat(np.arange(512), rng.integers(0, 40, 512))
        model.learn_one({"calls": calls})
        if i % 100 == 99:
            sizes.append(len(msgspec.msgpack.encode(model.dump())))

    assert max(sizes) <= KIB_32
    assert model.known.forgotten > 0
    assert max(sizes[-3:]) - min(sizes[-3:]) < 2048


def test_what_is_forgotten_is_still_near_to_something_known() -> None:
    """The profile that goes is the one that another stands for."""
    known = Nearest(most=20)
    profiles = [profile(np.array(program(i % 12, 300 + i))) for i in range(200)]
    for levels in profiles:
        known.learn(levels)

    assert len(known) == 20
    assert max(known.distances(levels)[0] for levels in profiles) < 0.05


@given(st.lists(st.integers(0, 511), max_size=40))
def test_six_grams_are_those_of_the_kernel(calls: Trace) -> None:
    """bpf/state.bpf.c: history = history << 9 | nr, in 54 bits; hash = history * MULTIPLIER >> 48."""
    history, expected = 0, []
    for number in calls:
        history = (history << 9 | number) & ((1 << 54) - 1)
        expected.append((history * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 48)

    assert expected == grams(numbers(calls)).tolist()


@pytest.mark.parametrize("rate", [0.2, 0.1, 0.05, 0.01])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_a_stationary_stream_no_more_is_told_than_was_promised(rate: float, seed: int) -> None:
    """Each trace is scored, then learned: p at or below the rate comes at most so often."""
    rng = random.Random(seed)
    model, told, count = Sequences(), 0, 0
    for i in range(1500):
        calls = program(rng.randrange(40), rng.randrange(80, 400))
        if i >= 300:
            count += 1
            told += model.p_one({"calls": calls}) <= rate
        model.learn_one({"calls": calls})

    assert told / count <= rate + 2 * (rate * (1 - rate) / count) ** 0.5


def test_occurrences_per_week_follow_the_rate_at_which_sequences_come() -> None:
    usual = Conformal()
    for i in range(99):
        usual.learn(i / 100)

    assert 70 == pytest.approx(usual.expected_per_week(0.9, 7 * 86_400, 700))
    assert usual.expected_per_week(2.0, 7 * 86_400, 700) < 0.01


# --- the same over weeks

DAY = 86_400
scores = st.lists(st.tuples(st.floats(0.01, 25), st.integers(0, 40)), max_size=90)


@given(scores, st.floats(0, 30), st.floats(0, 30))
def test_higher_is_rarer_never_negative_and_asking_changes_nothing(
    seen: list[tuple[float, int]], one: float, other: float
) -> None:
    usual = Calibrated()
    for score, day in sorted(seen, key=lambda row: row[1]):
        usual.learn(score, day)
    before = usual.dump()

    low, high = (usual.expected_per_week(s, 14 * DAY) for s in sorted((one, other)))

    assert 0 <= high <= low < float("inf")
    assert before == usual.dump() and len(before) <= usual.keep


@given(st.permutations([1.0, 2.5, 2.5, 7.0, 13.0]))
def test_the_order_within_a_day_does_not_matter_and_a_copy_knows_the_same(order: list[float]) -> None:
    usual, copy = Calibrated(), Calibrated()
    for score in order:
        usual.learn(score, 3)

    copy.load(usual.dump())

    assert [(s, 3) for s in (1.0, 2.5, 2.5, 7.0, 13.0)] == usual.scores == copy.scores


def test_what_repeats_is_less_unusual_each_time_and_is_forgotten_after_two_months() -> None:
    usual, told = Calibrated(), []
    for day in range(5):
        told.append(usual.expected_per_week(9.0, 14 * DAY))
        usual.learn(9.0, day)
    usual.learn(0.5, 70)

    assert sorted(told) == told and told[0] < 0.01 and [1.0, 1.5, 2.0, 2.5] == pytest.approx(told[1:])
    assert [(0.5, 70)] == usual.scores


@pytest.mark.parametrize(
    ("law", "budget"),
    [
        *(("exponential", budget) for budget in (0.1, 0.3, 1.0, 3.0)),
        *((law, budget) for law in ("many equal", "heavy") for budget in (1.0, 3.0)),
    ],
)
def test_no_more_a_week_are_told_than_was_promised(law: str, budget: float) -> None:
    """Stationary streams of 40 scores a day, two weeks learned and four judged, the mean of 150 workloads. A budget of
    less than once in what was learned rests on how scores fall off: it is kept for tails that are not heavy, and asked
    of no others."""
    random = np.random.default_rng(8)
    told = 0
    for _ in range(150):
        usual = Calibrated()
        draws = {
            "exponential": random.exponential(2.0, (42, 40)),
            "many equal": random.choice(
                [0.0, 0.2, 0.9, 3.0, 13.0], p=[0.9, 0.08, 0.0165, 0.003, 0.0005], size=(42, 40)
            ),
            "heavy": (1 - random.random((42, 40))) ** (-1 / 2),
        }[law]
        for day, row in enumerate(draws):
            for score in row.tolist():
                told += day >= 14 and usual.expected_per_week(score, day * DAY) <= budget
                usual.learn(score, day)

    assert told / 150 / 4 <= budget * 1.1


# --- measures


def test_a_measure_of_scores_that_are_all_equal_says_nothing_was_seen() -> None:
    same = np.zeros(10)

    assert (0.5, 0.0, 0.0) == (auc(same, same), detection(same, same, 0.05), threshold(same, 0.15))


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.sampled_from(traces.RATES),
)
def test_the_area_is_that_of_all_pairs_and_false_alarms_are_never_more_than_allowed(
    normal: list[int], attack: list[int], rate: float
) -> None:
    pairs = [(a > n) + (a == n) / 2 for a in attack for n in normal]
    n, a = np.array(normal, dtype=float), np.array(attack, dtype=float)

    assert sum(pairs) / len(pairs) == pytest.approx(auc(n, a))
    assert (n > threshold(n, rate)).mean() <= rate
    lower = [s for s in {*normal, -np.inf} if s < threshold(n, rate)]
    assert all((n > s).mean() > rate for s in lower), "a lower threshold was allowed"


def test_on_a_host_of_mixed_programs_the_three_together_see_more_than_each(tmp_path) -> None:
    """And more than six-grams with the nearest set."""
    folder = unpack(tmp_path)
    model = Sequences()
    result = traces.evaluate(folder, model)

    def parts(path):
        calls = numbers(traces.read(path))
        new = 1.0 - model.bitmap[grams(calls)].mean()
        return (new, *model.known.distances(profile(calls)))

    normal = np.array([parts(p) for p in traces.files(folder / "validation")])
    attack = np.array([parts(p) for p in traces.files(folder / "attack")])
    floor = auc(normal[:, 0] + normal[:, 2], attack[:, 0] + attack[:, 2])
    assert (400, 500, 200) == (result["train"], result["normal"], result["attacks"])
    assert result["auc"] >= 0.87
    assert result["auc"] >= floor + 0.02
    assert result["auc"] >= auc(normal[:, 0], attack[:, 0]) + 0.03
    assert result["auc"] >= auc(normal[:, 2], attack[:, 2]) + 0.02
