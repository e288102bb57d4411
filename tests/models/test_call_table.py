"""Calls that no scenario makes every day: told where the workload never made them, quiet where software always does."""

from collections.abc import Callable

import pytest

from probes.event import Event
from tests.models.scenarios import mix
from tests.models.scenarios.attacks import SH
from tests.models.test_short_learning import learned
from tests.models.world import World, proc, told

TOUCH = proc("/usr/bin/touch", "-d", "2020-01-01", "x", parent=SH)
SETCAP = proc("/usr/sbin/setcap", "cap_setuid+ep", "x", parent=SH)
OLD = {"mtime": 1_577_836_800, "backdated": True}

Make = Callable[[World], Event]
TOLD: dict[str, Make] = {
    "touch a program back": lambda w: w.changed(TOUCH, "utime", "/usr/bin/gzip", **OLD),
    "a shell sets code back": lambda w: w.changed(SH, "utime", "/app/worker.py", **OLD),
    "the worker sets code back": lambda w: w.changed(mix.WORKER, "utime", "/app/worker.py", **OLD),
    "rights by an attribute": lambda w: w.changed(SETCAP, "setxattr", "/app/x", name="security.capability"),
    "a file nobody can change": lambda w: w.event(
        "file", "chattr", SH, "/data/uploads/x", flags="FS_IMMUTABLE_FL|FS_EXTENT_FL"
    ),
    "a raw socket": lambda w: w.called(mix.WORKER, "socket", "inet raw", result=5, family="inet", type="raw"),
    "a packet socket": lambda w: w.called(mix.NGINX, "socket", "packet raw", result=5, family="packet", type="raw"),
    "a packet socket, refused": lambda w: w.called(SH, "socket", result=-1, family="packet", type="raw"),
    "the kernel's ciphers": lambda w: w.called(SH, "socket", result=5, family="alg", type="seqpacket"),
    "the host by vsock": lambda w: w.called(SH, "socket", result=5, family="vsock", type="stream"),
    "page faults of its own": lambda w: w.called(mix.WORKER, "userfaultfd", result=5),
    "a key is read": lambda w: w.called(SH, "keyctl", "READ", command="READ"),
    "the clock is set": lambda w: w.called(SH, "clock_settime", "CLOCK_REALTIME"),
    "the clock is set, refused": lambda w: w.called(SH, "settimeofday", "CLOCK_REALTIME", result=-1),
    "another host name": lambda w: w.called(SH, "sethostname", "db-1"),
    "io_uring": lambda w: w.called(SH, "io_uring_setup", result=5),
}
ROUTE = {"family": "netlink", "type": "raw", "protocol": "route"}
QUIET: dict[str, Make] = {
    "the machine's addresses": lambda w: w.called(mix.NGINX, "socket", "netlink raw route", result=5, **ROUTE),
    "the worker's addresses": lambda w: w.called(mix.WORKER, "socket", "netlink raw route", result=5, **ROUTE),
    "the time of what it writes": lambda w: w.changed(mix.WORKER, "utime", "/data/uploads/1.jpg"),
    "the old time of what it writes": lambda w: w.changed(mix.WORKER, "utime", "/data/uploads/1.jpg", **OLD),
    "an attribute of what it writes": lambda w: w.changed(mix.WORKER, "setxattr", "/data/uploads/1.jpg", name="user.a"),
    "a time that is not there": lambda w: w.changed(TOUCH, "utime", "/usr/bin/x", result=-2, **OLD),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_the_workload_never_did_is_told(name: str):
    feed, world = learned(900)

    assert 1 == len(feed.give([TOLD[name](world.at(930))]))


@pytest.mark.parametrize("name", QUIET)
def test_what_software_does_every_day_is_quiet(name: str):
    feed, world = learned(900)

    assert [] == told(feed.give([QUIET[name](world.at(930))]))
