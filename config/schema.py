"""Every setting: type, unit, default and reason. `config/wonted.yaml` shows them all; a test keeps the two equal."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", value.strip())
        if not match:
            raise ValueError('expected a duration such as "90s", "30m" or "2d"')
        return float(match[1]) * UNITS[match[2]]
    if isinstance(value, bool) or (isinstance(value, (int, float)) and value != 0):
        raise ValueError('expected a duration with its unit, such as "90s", "30m" or "2d"')
    return value


def _size(value: Any) -> Any:
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)\s*(B|KiB|MiB|GiB)", value.strip())
        if not match:
            raise ValueError('expected a size such as "64MiB" or "1GiB"')
        return int(match[1]) * SIZES[match[2]]
    return value


DURATION_FORM = {"anyOf": [{"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|m|h|d|w)$"}, {"const": 0}]}
SIZE_FORM = {"anyOf": [{"type": "string", "pattern": r"^\d+\s*(B|KiB|MiB|GiB)$"}, {"type": "integer", "minimum": 0}]}

Duration = Annotated[float, BeforeValidator(_duration), Field(ge=0), WithJsonSchema(DURATION_FORM)]
"""Seconds; written with a unit: ms, s, m, h, d, w."""
Size = Annotated[int, BeforeValidator(_size), Field(ge=0), WithJsonSchema(SIZE_FORM)]
"""Bytes; written with a unit: B, KiB, MiB, GiB."""


def _moment(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError('expected a date and time such as "2026-12-01T08:00:00Z"') from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError('expected a date and time with its zone, such as "2026-12-01T08:00:00Z", in quotes')
    return value


Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Budget = Annotated[float, Field(gt=0, le=10_000)]
LearnedKind = Literal["exec", "file", "connect", "accept", "listen", "dns", "privilege", "sequence", "rate"]
Metric = Literal[
    "calls", "execs", "forks", "opens", "connects", "accepts", "queries", "bytes_in", "bytes_out", "failed", "denied",
    "held", "peers", "ports",
]  # fmt: skip


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Learn(Section):
    min: Duration = 86_400.0
    """Learn at least this long, whatever the evidence says. A day holds most daily jobs."""
    max: Duration | None = None
    """End learning after this long even without the evidence ("forced"). None: only evidence ends it. Meant for demos
    and tests; seconds are allowed. Where it is shorter than `min`, it wins."""
    evidence: Duration = 129_600.0
    """The least span of observation that the evidence rule accepts. 1.5 days holds each hour of the day once and half
    of them twice."""
    hours: Annotated[int, Field(ge=0, le=24)] = 20
    """Of the 24 clock hours, how many must have been seen before the evidence is complete."""
    until: Moment | None = None
    """Learn until this moment ("2026-12-01T08:00:00+01:00"), neither less nor more: `min` and `max` do not count then.
    For a migration or a rehearsal whose end is known. None, or in the past when learning begins: as if not set."""
    drift: Duration = 86_400.0
    """How long one kind of event of one workload learns again, after it has brought far more news for an hour than its
    learning predicted; people are told once. Only what is harmless by its sort is learned. 0: never."""


class Kind(Section):
    enabled: bool = True
    """False: this kind of event is neither learned nor told."""
    false_alerts_per_week: Budget | None = None
    """This kind's own budget, taken from the workload's. None: shares it."""


class Detector(Section):
    name: str
    """A detector of River: anomaly.HalfSpaceTrees."""
    parameters: dict[str, Any] = {}
    """What it is constructed with, as in River's documentation. A `seed` makes a replay give the same."""
    workloads: str = "*"
    """Shell pattern on the workload's name."""
    metrics: Annotated[list[Metric], Field(min_length=1)] = ["execs", "connects", "opens", "bytes_out"]
    """What it looks at, per minute: calls, execs, forks, opens, connects, accepts, queries, bytes_in, bytes_out,
    failed, denied, peers, ports."""
    false_alerts_per_week: Budget | None = None
    """Its own budget per workload. None: that of the kind rate."""


class Models(Section):
    false_alerts_per_week: Budget = 1.0
    """Alerts on normal behaviour that one workload may cause in a week. Lower is quieter and slower to see weak
    signals."""
    kinds: dict[LearnedKind, Kind] = {}
    """Per kind: exec, file, connect, accept, listen, dns, privilege, sequence, rate."""
    detectors: list[Detector] = []
    """Detectors of River's `anomaly` that also look at each minute's counts (name, parameters, workloads, metrics,
    false_alerts_per_week), scaled to 0..1. They learn for a day before they speak, and again after a restart."""


class LearnOverride(Section):
    min: Duration | None = None
    max: Duration | None = None
    evidence: Duration | None = None
    hours: Annotated[int, Field(ge=0, le=24)] | None = None
    until: Moment | None = None
    drift: Duration | None = None


class ModelsOverride(Section):
    false_alerts_per_week: Budget | None = None
    kinds: dict[LearnedKind, Kind] = {}


class Override(Section):
    learn: LearnOverride = LearnOverride()
    models: ModelsOverride = ModelsOverride()


class Allow(Section):
    rule: str = "*"
    """Name of the danger rule, or a shell pattern."""
    workload: str = "*"
    """Shell pattern on the workload's name."""
    exe: str = "*"
    """Shell pattern on the executable's path."""
    reason: str = ""
    """Why this is allowed, for whoever reads the file next year."""


def _allow(value: Any) -> Any:
    return {"rule": value} if isinstance(value, str) else value


class Danger(Section):
    enabled: bool = True
    """False: the danger list is silent. Learned deviations are still told."""
    allow: list[Annotated[Allow, BeforeValidator(_allow)]] = []
    """What of the danger list is usual here: a rule's name, or a mapping of rule, workload, exe (shell patterns) and
    reason."""


class Terminal(Section):
    enabled: bool = True
    """Print alerts to stderr, for a person."""


class JsonLines(Section):
    path: str | None = None
    """File that gets one JSON object per alert, appended. "-": stdout. None: off (`wonted alerts` works without it)."""
    findings: bool = False
    """Also write each finding as it is made, before grouping, with "finding": true."""


class Slack(Section):
    token: str | None = None
    """Bot token (xoxb-...). Prefer token_file: a config is often read by more people than a secret should be."""
    token_file: str | None = None
    """File that holds the bot token."""
    app_token_file: str | None = None
    """File that holds the app-level token for buttons (Socket Mode). Not needed to post."""
    webhook_file: str | None = None
    """File that holds an incoming-webhook URL: no edits, no threads. Used where no token is given."""
    channel: str | None = None
    """Channel id or #name. Needed with a token."""
    base_url: str = "https://slack.com/api/"
    """Slack's API. Change it for a proxy, or for a stand-in in tests."""
    dry_run: bool = False
    """True: render and count, post nothing."""


class Sinks(Section):
    terminal: Terminal = Terminal()
    json_: JsonLines = Field(default=JsonLines(), alias="json")
    slack: Slack = Slack()
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True)


class Probe(Section):
    enabled: bool = True
    """False: this family is not attached; what it would see is not learned and not told."""


class Probes(Section):
    file: Probe = Probe()
    network: Probe = Probe()
    dns: Probe = Probe()
    privilege: Probe = Probe()
    ring: Size = 16 << 20
    """Ring buffer between kernel and agent. Larger rides out longer stalls; a power of two."""
    slots: Annotated[int, Field(ge=2, le=4096)] = 128
    """Cgroups whose system calls are counted apart, some 14 KiB of kernel memory each; more share one slot."""
    known: Annotated[int, Field(ge=1024, le=1 << 20)] = 32_768
    """Usual behaviours that the kernel counts instead of sending, 80 bytes each."""
    new_per_second: Annotated[int, Field(ge=100)] = 4_000
    """New file names that one cgroup may send per second, twice that at once: what one worker can judge without making
    others wait. What is held back is counted."""
    flush: Duration = 0.2
    """How often the agent sends what it has. Shorter is a faster alert and more messages."""


class Log(Section):
    retention: Duration = 86_400.0
    """How long the embedded log keeps a record."""
    size: Size = 1 << 30
    """How large the embedded log may grow in all; the oldest segment goes first. Whichever of the two is less."""


class Incidents(Section):
    window: Duration = 600.0
    """Findings of one workload within this time of the first join its incident."""
    update: Duration = 30.0
    """How often an incident that grows is told again (edited in Slack)."""
    per_minute: Annotated[int, Field(ge=1)] = 20
    """New incidents told per minute in all; more become one digest."""


class Settings(Section):
    broker: Annotated[str, Field(pattern=r"^(embedded://.*|kafka://.+)$")] = "embedded://"
    """Where the stream lives. embedded:// is a log in the data directory; kafka://host:port,... a broker."""
    partitions: Annotated[int, Field(ge=1, le=256)] = 8
    """Partitions of each topic. Fixed for the life of the data."""
    snapshot: Duration = 15.0
    """How often a changed baseline is written to the table; a crash replays at most this much."""
    learn: Learn = Learn()
    models: Models = Models()
    workloads: dict[str, Override] = {}
    """Shell pattern on the workload's name -> any of learn and models. The last match wins, key by key."""
    danger: Danger = Danger()
    incidents: Incidents = Incidents()
    sinks: Sinks = Sinks()
    probes: Probes = Probes()
    log: Log = Log()
