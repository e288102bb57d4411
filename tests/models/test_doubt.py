"""What is in doubt is judged as if it had not been."""

from models.counts import DAY, Categories


def busy(*windows: int) -> Categories:
    seen = Categories()
    for day in range(14):
        seen.add("new upload", day * DAY + DAY)
    for window in windows:
        seen.add("new program", window)
    return seen


def test_what_is_in_doubt_says_nothing_of_how_usual_it_is():
    """Neither alone, nor as the second of its sort: programs that started with it do not excuse what came later."""
    now, doubted = 14 * DAY, 9 * DAY

    for windows in ((), (60,), (60, 600), (6 * DAY,), (6 * DAY, 7 * DAY)):
        without, within = busy(*windows), busy(*windows, doubted)

        assert without.per_week("new program", now) == within.per_week("new program", now, now, doubted), windows
        assert without.seen("new program", now) == within.seen("new program", now, now, doubted), windows
        assert without.unseen_per_week(now) == within.unseen_per_week(now, now, doubted), windows


def test_other_sorts_of_the_window_in_doubt_say_nothing_either():
    """An intruder did more than one thing."""
    now, doubted = 14 * DAY, 9 * DAY
    within = busy(60, doubted)
    within.add("new peer", doubted)

    assert busy(60).per_week("new program", now) == within.per_week("new program", now, now, doubted)
