"""Where alerts go."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`SINKS`, imported on demand: what only needs `pipeline.sinks.text` does not pay for Slack's client."""
    if name != "SINKS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.sinks.jsonlines import JsonLines
    from pipeline.sinks.slack import Slack
    from pipeline.sinks.terminal import Terminal

    return (Terminal, JsonLines, Slack)
