"""One JSON object per line, appended to a file (0600) or to stdout."""

import errno
import json
import logging
import os
import stat
import time
from collections import deque
from pathlib import Path
from typing import Self

from config.schema import Settings
from models.finding import Finding
from pipeline.alert import Alert, finding_json, to_line
from pipeline.sinks.base import NOTHING, Delivery, Plain, Told
from pipeline.sinks.terminal import write

log = logging.getLogger("wonted.jsonlines")
TAIL = 1 << 20
"""Bytes at the end of the file that are looked through for a line that may have been written before a crash."""
HELD = 10_000
"""Findings kept in memory while the file cannot be written."""


class JsonLines(Plain):
    name = "json"

    def __init__(self, path: str, findings: bool = False) -> None:
        self.path = path
        self.findings = findings
        self.lost_findings = 0
        self._fd: int | None = None
        self._held: deque[bytes] = deque()

    @classmethod
    def from_settings(cls, settings: Settings, data: Path) -> Self | None:
        config = settings.sinks.json_
        return cls(config.path, config.findings) if config.path else None

    async def tell(self, alert: Alert, told: Told = NOTHING) -> Delivery:
        line = to_line(alert.to_json())
        if self.path == "-":
            return await write(1, line)
        if told.again and self._holds(alert):
            return Delivery("sent")
        return self._append(line)

    def write_finding(self, finding: Finding, finding_id: str, incident: str | None, host: str | None = None) -> None:
        """A finding before grouping. While the disk is full they wait in memory, up to HELD; then they are counted."""
        if not self.findings:
            return
        self._held.append(to_line(finding_json(finding, finding_id, incident, time.time_ns(), host)))
        while self._held:
            if self.path == "-":
                os.write(1, self._held[0])
            elif not self._append(self._held[0]).ok:
                break
            self._held.popleft()
        while len(self._held) > HELD:
            self._held.popleft()
            self.lost_findings += 1

    async def close(self) -> None:
        self._close()

    def _append(self, line: bytes) -> Delivery:
        """All of the line or nothing of it."""
        try:
            fd = self._file()
            size = os.fstat(fd).st_size
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
            if regular and size and self._last_byte(fd, size) != b"\n":
                line = b"\n" + line  # somebody died in the middle of a line: ours stays whole
            done = os.write(fd, line)
            if done == len(line):
                return Delivery("sent")
            if regular and os.fstat(fd).st_size == size + done:
                os.ftruncate(fd, size)
            return Delivery("retry", error=f"{self.path}: only {done} of {len(line)} bytes written; is the disk full?")
        except OSError as error:
            self._close()
            wait = 5.0 if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EAGAIN) else None
            return Delivery("retry", error=f"{self.path}: {error.strerror}", after=wait)

    def _last_byte(self, fd: int, size: int) -> bytes:
        try:
            return os.pread(fd, 1, size - 1)
        except OSError:  # a file that we may write but not read
            return b"\n"

    def _file(self) -> int:
        """The open file; opened again when it was moved or deleted (logrotate)."""
        if self._fd is not None:
            try:
                there, ours = os.stat(self.path), os.fstat(self._fd)
                if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                    return self._fd
            except FileNotFoundError:
                pass
            self._close()
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            self._fd = os.open(self.path, flags | os.O_RDWR, 0o600)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EINVAL, errno.ENXIO):
                raise
            self._fd = os.open(self.path, flags | os.O_WRONLY, 0o600)
        return self._fd

    def _holds(self, alert: Alert) -> bool:
        """Whether this very telling is in the file already."""
        try:
            with open(self.path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
                lines = file.read(TAIL).split(b"\n")
        except OSError:
            return False
        for line in lines:
            if alert.id.encode() in line:
                try:
                    told = json.loads(line)
                except ValueError:
                    continue
                if (told.get("id"), told.get("seen"), told.get("finding")) == (alert.id, alert.seen, None):
                    return True
        return False

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
