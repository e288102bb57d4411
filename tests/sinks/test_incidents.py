"""How findings become few messages."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from config.schema import Settings
from models.finding import SEVERITIES, Finding
from pipeline.alert import Alert
from pipeline.incidents import BURST, DISTINCT, CorruptIncidents, Incidents

START = 1_795_379_467_123_456_789
SECOND = 10**9
Make = Callable[..., Finding]


def at(seconds: float) -> int:
    return START + int(seconds * SECOND)


def take(incidents: Incidents, finding: Finding, name: str) -> list[Alert]:
    return incidents.take(finding, finding.event.time + SECOND // 10, name, "node-1")


def test_the_first_finding_is_told_at_once(finding: Make, settings: Settings) -> None:
    [alert] = take(Incidents(settings), finding(), "0/1/0")

    assert (1, False, None, "node-1") == (alert.seen, alert.update, alert.fold, alert.host)
    assert alert.incident is not None and alert.incident.startswith("in_")


def test_the_same_again_is_an_edit_every_thirty_seconds(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)
    [first] = take(incidents, finding(), "a")

    quiet = [take(incidents, finding(at=1 + n), f"b{n}") for n in range(9)]
    early = incidents.tick(at(20))
    [edit] = incidents.tick(at(31))
    after = incidents.tick(at(90))

    assert ([[]] * 9, [], []) == (quiet, early, after)
    assert (first.id, True, 10, first.time) == (edit.id, edit.update, edit.seen, edit.time)
    assert 9 == incidents.quieted["repeat_in_incident"]


def test_folded_events_count_as_often_as_they_happened(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)

    [first] = take(incidents, finding(count=7), "a")
    [edit] = take(incidents, finding(at=40, count=5, lost=3), "b")

    assert (7, 12, 3) == (first.seen, edit.seen, edit.lost)


def test_another_command_with_the_same_fingerprint_is_kept_word_for_word(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)
    take(incidents, finding(), "a")
    for n, command in enumerate(["cat /etc/shadow", "cat /etc/shadow", "id"]):
        take(incidents, finding(at=1 + n, argv=("/bin/sh", "-c", command)), f"b{n}")

    [edit] = incidents.tick(at(60))

    assert ["/bin/sh -c 'cat /etc/shadow'"] == [other.command for other in edit.others]


def test_a_different_finding_joins_the_incident_as_its_own_alert(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)
    [first] = take(incidents, finding(), "a")
    [second] = take(incidents, finding(at=5, fingerprint="shop novelty wget", argv=("/usr/bin/wget", "x")), "b")

    assert first.incident == second.incident
    assert first.id != second.id and not second.update and second.fold is None


@pytest.mark.parametrize(("later", "same"), [(599, True), (601, False)])
def test_an_incident_lasts_for_its_window(later: float, same: bool, finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)
    [first] = take(incidents, finding(), "a")
    incidents.tick(at(300))
    [second] = take(incidents, finding(at=later), "b")

    assert same == (first.incident == second.incident)
    assert same == second.update


def test_what_was_counted_when_an_incident_ends_is_still_told(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)
    [first] = take(incidents, finding(), "a")
    take(incidents, finding(at=599), "b")
    take(incidents, finding(at=599.5), "c")
    take(incidents, finding(at=700), "d")

    assert [(first.id, 3)] == [(alert.id, alert.seen) for alert in incidents.tick(at(700))]


def test_workloads_do_not_share_incidents(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)

    told = [take(incidents, finding(workload=name), name) for name in ("a", "b")]

    assert 2 == len({alert.incident for [alert] in told})


def test_a_burst_is_folded_after_five(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)

    told = [take(incidents, finding(at=n, fingerprint=f"f{n}"), f"{n}")[0] for n in range(8)]

    assert [None] * BURST + ["incident"] * 3 == [alert.fold for alert in told]
    assert 8 == len({alert.id for alert in told}) and 1 == len({alert.incident for alert in told})


def test_noise_does_not_hide_what_is_worse(finding: Make, settings: Settings) -> None:
    """Fifty low findings leave the critical one a message of its own, that says that it is worse."""
    incidents = Incidents(settings)
    for n in range(50):
        take(incidents, finding(at=n / 10, fingerprint=f"f{n}", severity="low"), f"{n}")

    [alert] = take(incidents, finding(at=6, fingerprint="shell", severity="critical"), "worse")

    assert (None, True) == (alert.fold, alert.escalates)


def test_the_same_finding_getting_worse_is_told_at_once(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)
    [first] = take(incidents, finding(severity="medium"), "a")
    [worse] = take(incidents, finding(at=1, severity="critical", what="It is worse"), "b")
    [later] = take(incidents, finding(at=40, severity="medium"), "c")

    assert (first.id, True, True, "critical", "It is worse", 2) == (
        worse.id, worse.update, worse.escalates, worse.severity, worse.what, worse.seen,
    )  # fmt: skip
    assert (False, "critical") == (later.escalates, later.severity)


def test_more_than_twenty_incidents_a_minute_become_a_digest(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)

    told = [take(incidents, finding(at=n, workload=f"w{n}"), f"{n}")[0] for n in range(30)]
    [worse] = take(incidents, finding(at=31, workload="z", severity="critical"), "z")
    [later] = take(incidents, finding(at=100, workload="y"), "y")

    assert [None] * 20 + ["minute"] * 10 == [alert.fold for alert in told]
    assert (None, None) == (worse.fold, later.fold)


def test_what_would_not_be_told_never_shares_an_incident_with_what_is(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)
    [quiet] = take(incidents, finding(would_alert=True, mode="learning"), "a")
    [loud] = take(incidents, finding(at=1), "b")

    assert quiet.would_alert and not loud.would_alert
    assert quiet.incident != loud.incident and quiet.id != loud.id


def test_in_dry_run_everything_would_alert(finding: Make) -> None:
    incidents = Incidents(Settings.model_validate({"sinks": {"slack": {"dry_run": True}}}))

    assert take(incidents, finding(), "a")[0].would_alert


def test_an_incident_of_ten_thousand_kinds_stays_small(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)
    ids = {alert.id for n in range(3000) for alert in take(incidents, finding(at=n / 100, fingerprint=f"f{n}"), f"{n}")}
    edits = incidents.tick(at(600))

    assert DISTINCT + 1 == len(ids)
    assert 3000 == DISTINCT + edits[-1].seen


def test_a_replayed_finding_counts_nothing_and_is_told_the_same(finding: Make, settings: Settings) -> None:
    incidents = Incidents(settings)
    first = take(incidents, finding(), "a")
    take(incidents, finding(at=1), "b")

    again = [take(incidents, finding(), "a"), take(incidents, finding(at=1), "b")]
    [edit] = incidents.tick(at(60))

    assert [(first[0].id, 1)] * 2 == [(alert.id, alert.seen) for [alert] in again]
    assert 2 == edit.seen


Steps = st.lists(
    st.tuples(
        st.floats(0, 1500), st.sampled_from("abcdefgh"), st.sampled_from(["v", "w"]), st.sampled_from(SEVERITIES)
    ),
    max_size=40,
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(steps=Steps, cut=st.integers(0, 40))
def test_a_restart_in_between_changes_nothing(steps: list[Any], cut: int) -> None:
    """Dumped and loaded anywhere, and whether or not the last findings are replayed, the same alerts come out."""
    build = make_finding()
    steps = sorted(steps, key=lambda step: step[0])

    def run(restart: bool) -> list[tuple[str, int]]:
        incidents = Incidents(Settings(), user_name=lambda uid: None)
        told = []
        for n, (seconds, mark, workload, severity) in enumerate(steps):
            if restart and n == cut:
                data = incidents.dump()
                incidents = Incidents(Settings(), user_name=lambda uid: None)
                incidents.load(data)
                for back in range(max(0, n - 3), n):
                    s, m, w, sev = steps[back]
                    incidents.take(build(s, m, w, sev), at(s), str(back))
            told += incidents.take(build(seconds, mark, workload, severity), at(seconds), str(n))
            told += incidents.tick(at(seconds))
        return [(alert.id, alert.seen) for alert in [*told, *incidents.tick(at(4000))]]

    assert run(restart=False) == run(restart=True)


@hypothesis_settings(max_examples=60, deadline=None)
@given(steps=Steps)
def test_every_finding_is_counted_in_exactly_one_alert(steps: list[Any]) -> None:
    build = make_finding()
    incidents = Incidents(Settings(), user_name=lambda uid: None)
    told = []
    for n, (seconds, mark, workload, severity) in enumerate(sorted(steps, key=lambda step: step[0])):
        told += incidents.take(build(seconds, mark, workload, severity), at(seconds), str(n))
    told += incidents.tick(at(4000))

    latest = {alert.id: alert.seen for alert in sorted(told, key=lambda alert: alert.seen)}
    assert len(steps) == sum(latest.values())
    assert len(told) == len({(alert.id, alert.seen) for alert in told})


def make_finding() -> Callable[[float, str, str, str], Finding]:
    from pipeline.sinks.sample import sample_finding

    def build(seconds: float, mark: str, workload: str, severity: str) -> Finding:
        return sample_finding(at(seconds), workload=workload, fingerprint=f"{workload} {mark}", severity=severity)

    return build


@pytest.mark.parametrize("data", [b"", b"\xff\xff", b"junk", b"\x81\xa1v\x05"])
def test_a_damaged_dump_is_refused_with_a_reason(data: bytes, settings: Settings) -> None:
    with pytest.raises(CorruptIncidents, match="open incidents"):
        Incidents(settings).load(data)
