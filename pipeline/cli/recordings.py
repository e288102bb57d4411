"""record, replay."""

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from pipeline.cli.alerts import Since, seconds
from pipeline.cli.context import DEPENDENCY, FAILURE, FINDINGS, OK, Stop, options, say
from pipeline.cli.service import Json


def register(app: typer.Typer) -> None:
    app.command()(record)
    app.command()(replay)


def record(
    file: Annotated[Path, typer.Argument(help="A new file, or a recording that is to go on.")],
    since: Since = None,
    length: Annotated[str | None, typer.Option("--for", metavar="TIME", help="Stop after this long.")] = None,
) -> int:
    """What the probes saw, into a file: from now on until Ctrl-C; with --since what is in the log already."""
    from pipeline.recording import NoLog, Observations
    from probes.replay import BadRecording, Recorder

    span = None if length is None else seconds(length)
    back = None if since is None else seconds(since)
    try:
        source = Observations(options.load().settings, options.folder)
        with Recorder(file) as recorder:
            ended = _until(span) if span is not None or back is None else lambda: True
            if back is None:
                source.skip()
                say(f"recording to {file}" + ("; Ctrl-C ends it" if span is None else ""))
            count = 0
            for payload in source.read(time.time() - back) if back is not None else ():
                recorder.write(payload)
                count += 1
            for payload in source.follow(ended):
                recorder.write(payload)
                recorder.flush()
                count += 1
    except NoLog as error:
        raise Stop(DEPENDENCY, f"wonted: {error}") from None
    except BadRecording as error:
        raise Stop(FAILURE, f"wonted: {error}") from None
    say(f"{count} batches recorded in {file}")
    return OK


class _until:
    """Whether it is time to end: after `span` seconds, or at Ctrl-C or SIGTERM, whichever is first."""

    def __init__(self, span: float | None) -> None:
        self.end = None if span is None else time.monotonic() + span
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, _: int, __: FrameType | None) -> None:
        self.asked = True

    def __call__(self) -> bool:
        return self.asked or (self.end is not None and time.monotonic() >= self.end)


def replay(
    file: Annotated[Path, typer.Argument(help="A recording.")],
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="What if this were set? Repeatable.")
    ] = None,
    json: Json = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 10 when there are alerts.")] = False,
) -> int:
    """A recording through models and incidents, from an empty baseline: which alerts would it have given?"""
    from pipeline.cli.alerts import show
    from pipeline.cli.out import emit
    from pipeline.recording import play
    from probes.replay import BadRecording, read

    try:
        after = play(options.load(change or ()).settings, read(file))
        before = play(options.load().settings, read(file)) if change and not json else None
    except BadRecording as error:
        raise Stop(FAILURE, f"wonted: {error}") from None
    for alert in after.alerts.values():
        if json:
            emit(alert)
        else:
            show(alert)
    lost = f", {after.lost} lost" if after.lost else ""
    say(f"{after.batches} batches, {after.events} events{lost}, {after.workloads} workloads")
    counts = f"{len(before.alerts)} alerts -> {len(after.alerts)}" if before else f"{len(after.alerts)} alerts"
    say(f"{counts} ({sum(alert['would_alert'] for alert in after.alerts.values())} of them while learning)")
    return FINDINGS if after.alerts and exit_code else OK
