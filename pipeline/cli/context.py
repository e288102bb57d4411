"""What every command shares: the global options, the settings, the service, and what is told to the person."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from config.folders import data_folder

if TYPE_CHECKING:
    from config.load import Loaded
    from pipeline.client import Client

OK, FAILURE, USAGE, CONFIG, PRIVILEGE, DEPENDENCY, FINDINGS, INTERRUPTED = 0, 1, 2, 3, 4, 5, 10, 130


class Stop(Exception):
    """Ends the command with this exit code, and with these words for a person on stderr."""

    def __init__(self, code: int, words: str = "") -> None:
        super().__init__(words)
        self.code, self.words = code, words


@dataclass(slots=True)
class Options:
    """-c, -o and --data."""

    config: Path | None = None
    overrides: list[str] = field(default_factory=list)
    data: Path | None = None

    @property
    def folder(self) -> Path:
        return data_folder(self.data)

    def load(self, more: Sequence[str] = ()) -> "Loaded":
        """The settings in force, with `more` overrides; what the models know of them is checked as well."""
        from config.load import load
        from pipeline.settings import CHECKS

        return load(self.config, [*self.overrides, *more], checks=CHECKS)

    def client(self, timeout: float | None = 30.0) -> "Client":
        from pipeline.client import Client

        return Client(self.folder, timeout=timeout)

    def elsewhere(self) -> str:
        """What somebody forgets who started the service with sudo and asks it without."""
        return "" if self.data or os.geteuid() == 0 else "; one that root started is asked with sudo"


options = Options()
"""Of this call of the program; set before the command begins."""


def say(words: str) -> None:
    """To the person, never to the data: stderr."""
    print(words, file=sys.stderr, flush=True)
