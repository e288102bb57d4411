"""Labelled traces that ship with the tests: docs/evaluation.md says how they were made."""

import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).parent / "data" / "traces.tar.xz"


def unpack(folder: Path) -> Path:
    """train/, validation/ and attack/<class>/ of a host with mixed programs, one file per thread."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder
