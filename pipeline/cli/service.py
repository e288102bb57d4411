"""run, demo, doctor, status, stop, version."""

import dataclasses
import json
import os
import sys
from typing import Annotated, Any

import typer

from config import VERSION
from pipeline.cli.context import CONFIG, OK, PRIVILEGE, Stop, options, say

FORCED_SHOWN = 10
"""Workloads that `status` names one by one; a node has hundreds."""

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(demo)
    app.command()(doctor)
    app.command()(status)
    app.command()(stop)
    app.command()(version)


def run(
    probe: Annotated[bool, typer.Option("--probe/--no-probe", hidden=True, help="Only the worker.")] = True,
) -> None:
    """Watch this machine, in the foreground, until SIGTERM or Ctrl-C."""
    options.load()
    if probe:
        see_or_stop()
    # A new program in the same process: the service is to hold none of the command line's memory.
    config = str(options.config) if options.config else None
    start = {"config": config, "overrides": options.overrides, "data": str(options.folder), "probe": probe}
    os.execv(sys.executable, [sys.executable, "-m", "pipeline.start", json.dumps(start)])


def see_or_stop() -> None:
    """Exit 4 with the fix where the probes could not see."""
    from pipeline.doctor import sight

    failed = [check for check in sight() if not check.ok]
    if failed:
        lines = [f"wonted: {check.check}: {check.found}; {check.fix}" for check in failed]
        raise Stop(PRIVILEGE, "\n".join(["wonted: not started, it would be blind:", *lines]))


def demo(
    engine: Annotated[str, typer.Option(help="auto, docker, runc or plain.")] = "auto",
    learn: Annotated[
        float, typer.Option(metavar="SECONDS", min=5, max=3600, help="How long the shop is learned.")
    ] = 60.0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the data folder.")] = False,
) -> int:
    """A small shop, a minute of learning, an attack, and what people are told of it. Leaves nothing behind."""
    from pipeline.demo import main

    if engine not in ("auto", "docker", "runc", "plain"):
        raise typer.BadParameter(f"--engine {engine}: expected auto, docker, runc or plain")
    see_or_stop()
    return main(engine, learn, keep)


def doctor(json: Json = False) -> int:
    """What this machine has and lacks, with a fix for each failing line."""
    from config.load import ConfigError
    from pipeline.doctor import Check, sight, surroundings

    settings, wrong = None, None
    try:
        loaded = options.load()
        settings = loaded.settings
        found = ", ".join(map(str, loaded.files)) or "the defaults"
    except ConfigError as error:
        wrong = error
        found = str(error.problems[0]) + (f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else "")
    eyes = list(sight())
    config = Check(
        "config", wrong is None, found, None if wrong is None else "mend it; `wonted config check` lists all"
    )
    around = list(surroundings(settings, options.folder))
    checks = [*eyes, config, *around]
    if json:
        from pipeline.cli.out import emit

        for check in checks:
            emit(dataclasses.asdict(check))
    else:
        _show(checks)
    needed = [check for check in (*eyes, *around) if not check.ok and check.check != "tracefs"]
    return PRIVILEGE if needed else CONFIG if wrong else OK


def _show(checks: list[Any]) -> None:
    from rich.text import Text

    from pipeline.cli.out import table
    from pipeline.sinks.text import visible

    rows = []
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("FAIL", style="bold red")
        found = visible(check.found) + ("" if check.ok else f"\nfix: {check.fix}")
        rows.append((check.check, mark, Text(found)))
    table(("check", "", "found"), rows)
    failing = sum(not check.ok for check in checks)
    say(f"{failing} of {len(checks)} checks fail" if failing else "all is well; `wonted run` starts the service")


def status(json: Json = False) -> int:
    """How the running service is: probes, rates, losses by stage, lag, outbox."""
    from pipeline.cli.out import emit, facts, size, span
    from pipeline.cli.workloads import mode
    from pipeline.losses import words

    with options.client() as client:
        found = client.call("status")
        rows = [] if json else client.call("workloads")
    if json:
        emit(found)
        return OK
    probes = found.get("probes", {})
    missing = [f"{name}: {state.get('error') or 'off'}" for name, state in probes.items() if not state.get("attached")]
    forced = [f"{row['workload']}: {mode(row)}" for row in rows if row["mode"] == "forced"]
    if len(forced) > FORCED_SHOWN:
        forced[FORCED_SHOWN:] = [f"and {len(forced) - FORCED_SHOWN} more: wonted workloads ls"]
    lost = words(found.get("lost") or {})
    outbox, memory = found.get("outbox", {}), found.get("memory", {})
    facts(
        [
            ("state", found["color"]),
            *(("", reason) for reason in found.get("reasons", [])),
            ("uptime", f"{span(found.get('uptime_s'))} (pid {found.get('pid')}, {found.get('version')})"),
            ("workloads", found.get("workloads")),
            *(("", line) for line in forced),
            *(("held back", held(row)) for row in found.get("held") or ()),
            ("probes", f"{len(probes) - len(missing)}/{len(probes)} attached"),
            *(("", f"missing {name}") for name in missing),
            ("probe holds", holds(found.get("probe", {}).get("rights") or {})),
            ("rates", found.get("rates")),
            ("received", found.get("received")),
            ("lost", lost[0] if lost else "nothing"),
            *(("", sentence) for sentence in lost[1:]),
            ("lag", f"{sum((found.get('lag') or {}).values())} batches"),
            ("alerts", found.get("alerts")),
            ("outbox", f"{outbox.get('depth', 0)} waiting, oldest {span(outbox.get('oldest_s'))}"),
            ("sinks", {name: f"{s.get('sent', 0)} sent" for name, s in outbox.get("sinks", {}).items()}),
            ("memory", {name.removesuffix("_bytes"): size(value) for name, value in memory.items()}),
            ("disk", {name.removesuffix("_bytes"): size(value) for name, value in found.get("disk", {}).items()}),
            ("config", found.get("config") or "the defaults"),
            ("data", found.get("data")),
            ("broker", found.get("broker")),
        ]
    )
    return OK


def held(row: dict[str, Any]) -> str:
    """
    >>> held({"workload": "web", "snoozed": "2026-11-26T09:00:00.000000Z", "snoozed_values": 0, "locked": ["exec"]})
    'web: snoozed until 2026-11-26T09:00Z, locked: exec'
    """
    parts = []
    if row["snoozed"]:
        parts.append(f"snoozed until {row['snoozed'][:16]}Z")
    if row["snoozed_values"]:
        parts.append(f"{row['snoozed_values']} values snoozed")
    if row["locked"]:
        parts.append(f"locked: {', '.join(row['locked'])}")
    for kind, until in (row.get("kinds_relearned_until") or {}).items():
        parts.append(f"{kind} learned again until {until[:16]}Z")
    return f"{row['workload']}: {', '.join(parts)}"


def holds(rights: dict[str, Any]) -> str:
    """
    >>> holds({"holds": ["CAP_SYS_PTRACE"], "could_get": [], "no_new_privs": True}), holds({})
    ('CAP_SYS_PTRACE, no new privileges', '-')
    """
    if not rights:
        return "-"
    more = "no new privileges" if rights.get("no_new_privs") else "may gain more by running programs"
    return f"{' '.join(rights.get('holds') or ['nothing'])}, {more}"


def stop() -> int:
    """Ask the running service to end."""
    with options.client() as client:
        say(f"wonted: asked pid {client.call('stop').get('pid')} to stop")
    return OK


def version(json: Json = False) -> int:
    """The version."""
    if json:
        from pipeline.cli.out import emit

        emit({"version": VERSION})
    else:
        print(f"wonted {VERSION}")
    return OK
