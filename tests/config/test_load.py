"""Settings from files, environment and command line; what is wrong is told with its place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import load as load_module
from config.load import ConfigError, Loaded, load
from config.schema import Settings
from config.source import parse


def problems(text: str, tmp_path: Path, *overrides: str) -> list[str]:
    file = tmp_path / "wonted.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, overrides, {})
    return [str(problem).replace(str(tmp_path) + "/", "") for problem in caught.value.problems]


def loaded(text: str, tmp_path: Path, *overrides: str, environ: dict[str, str] | None = None) -> Loaded:
    file = tmp_path / "wonted.yaml"
    file.write_text(text)
    return load(file, overrides, environ or {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learn:\n  mni: 3s\n", "wonted.yaml:2:3: learn.mni: no such setting; did you mean learn.min?"),
        (
            "false_alerts_per_week: 2\n",
            "wonted.yaml:1:1: false_alerts_per_week: no such setting; did you mean models.false_alerts_per_week?",
        ),
        (
            "models: {kinds: {exce: {enabled: no}}}\n",
            "wonted.yaml:1:18: models.kinds.exce: no such setting; did you mean models.kinds.exec?",
        ),
        (
            "workloads:\n  nginx.service:\n    learn: {mx: 3s}\n",
            'wonted.yaml:3:13: workloads."nginx.service".learn.mx: no such setting; '
            'did you mean workloads."nginx.service".learn.max?',
        ),
        (
            "danger: {allow: [{rul: x}]}",
            "wonted.yaml:1:19: danger.allow[0].rul: no such setting; did you mean danger.allow[0].rule?",
        ),
        (
            "log: {zzz: 1}",
            "wonted.yaml:1:7: log.zzz: no such setting; there are retention, size",
        ),
        (
            "learn: {min: 2 days}",
            'wonted.yaml:1:14: learn.min: expected a duration such as "90s", "30m" or "2d", got \'2 days\'',
        ),
        (
            "learn: {max: 60}",
            'wonted.yaml:1:14: learn.max: expected a duration with its unit, such as "90s", "30m" or "2d", got 60',
        ),
        ("log: {size: 1GB}", 'wonted.yaml:1:13: log.size: expected a size such as "64MiB" or "1GiB", got \'1GB\''),
        (
            "models: {false_alerts_per_week: '1'}",
            "wonted.yaml:1:33: models.false_alerts_per_week: expected a number, got '1'",
        ),
        ("danger: {enabled: 'yes'}", "wonted.yaml:1:19: danger.enabled: expected true or false, got 'yes'"),
        ("learn: 5\n", "wonted.yaml:1:8: learn: expected settings below it, got 5"),
        (
            "broker: redis://x",
            "wonted.yaml:1:9: broker: expected embedded:// or kafka://host:port,..., got 'redis://x'",
        ),
        (
            "learn:\n  hours: 1\n  hours: 2\n",
            "wonted.yaml:3:3: learn.hours: given twice; the first is at wonted.yaml:2:3",
        ),
        ("learn:\n\thours: 1\n", "wonted.yaml:2:1: a tab; YAML indents with spaces only"),
        ("learn: &a {min: *a}", "wonted.yaml:1:8: learn.min: an alias that holds itself"),
        ("partitions: !!python/name:os.system\n", None),
        ("learn:\n  min: 2d\x01\n", "wonted.yaml:2:10: not YAML: the character U+0001 is not allowed"),
        ("- 1\n", "wonted.yaml:1:1: expected settings such as `learn: {min: 2d}`"),
        (
            "sinks: {slack: {token_file: nowhere, channel: C1}}",
            "wonted.yaml:1:29: sinks.slack.token_file: nowhere: No such file or directory",
        ),
        (
            "sinks: {slack: {token: xoxb-1}}",
            "wonted.yaml:1:16: sinks.slack.channel: needed with a token: "
            'a channel id, or a "#name" in quotes (a bare # begins a comment)',
        ),
        ("probes: {ring: 5000B}", "wonted.yaml:1:16: probes.ring: expected a power of two of at least 4KiB, got 5000"),
        ("probes: {flush: 0s}", "wonted.yaml:1:17: probes.flush: expected 10ms to 60s, got 0s"),
        (
            "sinks:\n  json:\n    path: -",
            'wonted.yaml:3:11: not YAML: a list cannot begin here; write "-" in quotes if you mean that sign',
        ),
        ("sinks: {json_: {path: x}}", "wonted.yaml:1:9: sinks.json_: no such setting; did you mean sinks.json?"),
    ],
)
def test_an_error_says_where_what_and_what_to_do(text: str, expected: str | None, tmp_path: Path) -> None:
    found = problems(text, tmp_path)

    assert len(found) == 1
    assert expected is None or found == [expected]


def test_all_errors_are_told_at_once_in_their_order(tmp_path: Path) -> None:
    found = problems("learn:\n  mni: 3s\n  max: x\nlgo: {}\n", tmp_path, "partitions=many")

    assert [line.split(": ")[0] for line in found] == ["-o", "wonted.yaml:2:3", "wonted.yaml:3:8", "wonted.yaml:4:1"]


def test_nothing_given_is_the_defaults(tmp_path: Path) -> None:
    assert load(None, (), {}).settings == Settings()
    assert loaded("", tmp_path).settings == Settings()
    assert loaded("learn:\n  # min: 2d\nsinks: {slack: }\n", tmp_path).settings == Settings()


def test_the_command_line_wins_over_the_environment_and_that_over_files(tmp_path: Path) -> None:
    file = "learn: {min: 1h, max: 2h, evidence: 3h, hours: 4}\n"
    environ = {"WONTED_LEARN__MIN": "10h", "WONTED_LEARN__MAX": "20h", "WONTED_PARTITIONS": "3"}

    found = loaded(file, tmp_path, "learn.min=5s", environ=environ)

    learn = found.settings.learn
    assert (learn.min, learn.max, learn.evidence, learn.hours) == (5, 72_000, 10_800, 4)
    assert found.settings.partitions == 3
    assert str(found.places["learn.min"]) == "-o"
    assert str(found.places["learn.max"]) == "WONTED_LEARN__MAX"
    assert str(found.places["learn.hours"]) == f"{tmp_path}/wonted.yaml:1:48"


def test_environment_names_that_are_no_settings_are_left_alone(tmp_path: Path) -> None:
    environ = {"WONTED_REQUIRE_ALL": "1", "WONTED_PORT_9090_TCP": "tcp://1.2.3.4", "WONTED_SERVICE_HOST": "x"}

    assert loaded("", tmp_path, environ=environ).settings == Settings()


def test_a_misspelt_setting_in_the_environment_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"WONTED_LEARN__MNI: learn\.mni: no such setting; did you mean learn\.min"):
        load(None, (), {"WONTED_LEARN__MNI": "3s"})


def test_etc_is_read_in_order_and_a_given_file_replaces_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "ETC", tmp_path)
    (tmp_path / "wonted.yaml").write_text("learn: {min: 1h, max: 1h}\ndanger: {allow: [a, b]}\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10.yaml").write_text("learn: {max: 2h}\n")
    (tmp_path / "conf.d" / "20.yaml").write_text("learn: {max: 3h}\ndanger: {allow: [c]}\n")
    other = tmp_path / "other.yaml"
    other.write_text("learn: {hours: 1}\n")

    layered, single = load(None, (), {}), load(other, (), {})

    assert (layered.settings.learn.min, layered.settings.learn.max) == (3600, 10_800)
    assert [allow.rule for allow in layered.settings.danger.allow] == ["c"]
    assert len(layered.files) == 3
    assert single.settings.learn.min == Settings().learn.min


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("workloads.nginx.service.learn.max=5s", "nginx.service"),
        ('workloads."nginx.service".learn.max=5s', "nginx.service"),
        ("workloads.ci/*.learn.max=5s", "ci/*"),
        ("workloads.learn.learn.max=5s", "learn"),
    ],
)
def test_a_workload_with_dots_can_be_set_on_the_command_line(override: str, path: str) -> None:
    assert load(None, [override], {}).settings.workloads[path].learn.max == 5


def test_signs_that_yaml_takes_amiss_are_text_on_the_command_line() -> None:
    slack, json = "sinks.slack.channel=#ops", "sinks.json.path=-"

    sinks = load(None, [slack, json], {}).settings.sinks

    assert (sinks.slack.channel, sinks.json_.path) == ("#ops", "-")


@pytest.mark.parametrize("override", ["foo", "=3", "learn.min", "", ".=1", "learn..max=1s"])
def test_an_override_without_a_value_is_an_error(override: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a\.b=value"):
        load(None, [override], {})


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("xoxb-1\n")

    sinks = loaded("sinks: {slack: {token_file: token, channel: C1}, json: {path: a.jsonl}}", tmp_path).settings.sinks

    assert (sinks.slack.token_file, sinks.json_.path) == (f"{tmp_path}/token", f"{tmp_path}/a.jsonl")


def test_a_secret_file_that_holds_no_secret_is_an_error_that_does_not_quote_it(tmp_path: Path) -> None:
    cases = (
        (b"\n", "is empty"),
        (b"\xff\xfe", "is not text"),
        (b"s3cret words", "several words"),
        (b"s3cret", "no URL"),
    )
    for content, words in cases:
        (tmp_path / "token").write_bytes(content)
        [found] = problems("sinks: {slack: {webhook_file: token}}", tmp_path)
        assert words in found
        assert "s3cret" not in found


def test_a_file_that_is_missing_or_not_text_is_an_error(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"learn: \xff")
    for file, words in (
        (tmp_path / "none.yaml", "No such file"),
        (binary, "not UTF-8 at byte 7"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(ConfigError, match=words):
            load(file, (), {})


@given(st.text())
def test_any_text_is_read_or_refused_with_a_problem(text: str) -> None:
    """No input makes the reader raise."""
    source = parse(text, "x.yaml")

    assert all(str(problem).startswith("x.yaml") for problem in source.problems)


def test_aliases_of_aliases_do_not_grow_without_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    found = problems("\n".join(lines), tmp_path)

    assert any("too large" in line for line in found)


def test_a_file_that_is_too_large_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.source.MOST_NODES", 100)
    text = "workloads:\n" + "".join(f"  w{n}: {{learn: {{min: 2d}}}}\n" for n in range(100))

    assert ["wonted.yaml:34:22: too large: at most 100 names and values are read"] == problems(text, tmp_path)
    assert ["wonted.yaml: larger than 1 MiB, which no config is"] == problems("# " + "x" * (1 << 20), tmp_path)


def test_an_endless_file_is_not_read_for_ever() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: larger than 1 MiB"):
        load(Path("/dev/zero"), (), {})


def test_a_moment_is_shown_as_it_can_be_given() -> None:
    from config.reference import written

    moment = load(None, ["learn.until=2026-12-01T08:00:00Z"]).settings.learn.until

    assert '"2026-12-01T08:00:00+00:00"' == written(moment, None)
