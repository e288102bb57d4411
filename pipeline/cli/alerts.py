"""alerts: what was told, from the service or, when none runs, from its outbox."""

import sqlite3
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from pipeline.cli.context import DEPENDENCY, FINDINGS, OK, Stop, options, say
from pipeline.cli.service import Json
from pipeline.client import ClientError, NotRunning

Since = Annotated[str | None, typer.Option(metavar="TIME", help="Back to then: 90s, 1h, 2d.")]


def register(app: typer.Typer) -> None:
    app.command()(alerts)


def alerts(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="And those to come, until Ctrl-C.")] = False,
    since: Since = None,
    json: Json = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 10 when there are any.")] = False,
) -> int:
    """Alerts: who, what, why, the command."""
    from pipeline.cli.out import emit

    seen = 0
    for alert in told(follow, None if since is None else time.time_ns() - int(seconds(since) * 1e9)):
        seen += 1
        if json:
            emit(alert)
        else:
            show(alert)
    if not seen and not json:
        say("no alerts")
    return FINDINGS if seen and exit_code else OK


def seconds(text: str) -> float:
    """
    >>> seconds("90s"), seconds("1h")
    (90.0, 3600.0)
    """
    from config.schema import _duration

    try:
        return float(_duration(text))
    except ValueError as error:
        raise typer.BadParameter(f"{text}: {error}") from None


def told(follow: bool, since: int | None) -> Iterable[dict[str, Any]]:
    client = options.client()
    try:
        if follow:
            return client.stream("alerts", follow=True, since=time.time_ns() if since is None else since)
        found: list[dict[str, Any]] = client.call("alerts", since=since)
        return found
    except NotRunning:
        if follow:
            raise
        return from_outbox(since)


def from_outbox(since: int | None) -> list[dict[str, Any]]:
    from pipeline.sinks.outbox import read_alerts

    path = options.folder / "outbox.db"
    if not path.exists():
        raise Stop(
            DEPENDENCY,
            f"wonted: no wonted runs on {options.folder}, nor did one; start it with `wonted run`, or give its --data"
            + options.elsewhere(),
        )
    try:
        return read_alerts(path, since)
    except sqlite3.Error as error:
        raise ClientError(f"{path}: {error}") from None


def show(alert: dict[str, Any]) -> None:
    """As a person reads it: what, why, the command, and where it came from. Nothing that is known is left out."""
    from pipeline.cli.out import line, text

    container, remote = alert["container"] or {}, alert["remote"] or {}
    seen = f"seen {alert['seen']} x" + (", would alert" if alert["would_alert"] else "")
    time_ = alert["time"][:19].replace("T", " ")
    line(f"{time_}  {alert['severity'].upper():8}  {alert['what']}  ({seen})")
    name = f"{container.get('name') or 'name unknown'} - {container['id'][:12]}" if container else "none"
    address = remote.get("ip") and f"{remote['ip']}:{remote['port']}" + (
        f" ({remote['name']})" if remote["name"] else ""
    )
    line(f"    why        {alert['why']}")
    line(f"    command    {alert['command']}")
    line(f"    container  {name}, IP {text(container.get('ip') or 'none')}; remote {address or 'none'}")
    lost = f"{alert['lost']} events lost" if alert["lost"] else "nothing lost"
    line(f"    {alert['id']}  {alert['workload']}, {alert['mode']}, {lost}")
