"""Where things are kept, without reading any config."""

import os
from pathlib import Path

ETC = Path("/etc/wonted")


def data_folder(given: Path | None = None) -> Path:
    """Where Wonted keeps its state: --data, else /var/lib/wonted for root, else the XDG state folder."""
    if given is not None:
        return given.absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/wonted")
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "wonted"
