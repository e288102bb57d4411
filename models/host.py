"""A host that people work on: what is quiet there after a short look, and what is not.

Whoever works on a machine starts programs it never ran, every hour; a clock that ended learning cannot have seen them.
So on a host the odds of a deviation are multiplied, and only what work does not look like keeps its weight: a program
in a temporary place itself (not in a directory that a build made), a shell or a tool that a listening daemon starts, a
secret that is read by a program which has no business with it.
"""

import re

from models import programs
from models.kinds.view import Known, View
from probes.event import Event

WORK = 40.0
"""Odds of a deviation on a host, sessions and all, where the clock ended learning: people work there."""
SERVICE = 2.0
"""The same for a service of its own: it does one thing."""
DROPPED = 6.0
"""A program never seen, in /tmp itself."""
PEOPLE = re.compile(
    r"^(?:docker|containerd|crio|kubelet|podman|k3s|ssh|sshd|cron|crond|atd|anacron|systemd-.*|user@.*|.*getty@.*|dbus.*|polkit|apt-.*|packagekit|"
    r"snapd.*|unattended-upgrades|NetworkManager.*|cloud-.*|wonted.*)\.service$"
)
"""Units that start what people and timers ask for: as busy as the host itself."""
_ENTRANCES = re.compile(
    r"^(?:sshd.*|dockerd|containerd.*|conmon|crio|kubelet|systemd.*|cron|crond|atd|xrdp.*|login|cupsd|init|tini|code.*)$"
)
"""Listeners that are there to start what somebody asks for."""
_OWNERS: tuple[tuple[str, str], ...] = (
    ("/.ssh/", "ssh ssh-agent ssh-add ssh-keygen scp sftp git rsync sshfs"),
    ("_history", "bash zsh sh ash ksh fish python psql mysql sqlite3 less redis-cli node irb"),
    ("/.aws/", "aws terraform"),
    ("/.kube/", "kubectl helm k9s"),
    ("/.docker/", "docker docker-compose buildx docker-buildx dockerd"),
    ("/.gnupg/", "gpg gpg-agent gpgv git gpgconf scdaemon keyboxd"),
    ("/.npmrc", "node npm yarn pnpm"),
    ("/.netrc", "curl wget git ftp pip"),
    ("/.pypirc", "twine python pip"),
    ("/.pgpass", "psql pg_dump pg_restore pgcli"),
    ("/.my.cnf", "mysql mysqldump mariadb"),
    ("/.git-credentials", "git git-credential-store git-remote-https"),
    ("/.config/gcloud", "gcloud gsutil python terraform kubectl"),
    (".env", "docker docker-compose node python ruby php make direnv"),
    ("/environ", "ps systemd systemctl top htop lsof pgrep pkill"),
)  # fmt: skip
_TEMPORARY = re.compile(r"^/(?:var/)?tmp/|^/dev/(?:shm|mqueue)/")


def owns(program: str, secret: str) -> bool:
    """Is this a program that this secret is there for?

    >>> owns("/usr/bin/ssh", "/home/ana/.ssh/id_rsa"), owns("/tmp/k", "/home/ana/.ssh/id_rsa")
    (True, False)
    """
    name = programs.base(program)
    return any(part in secret and name in names.split() for part, names in _OWNERS)


def exposed(program: str, known: Known) -> bool:
    """A daemon that listens, and not to start programs for people."""
    name = programs.base(program)
    if _ENTRANCES.match(name) or programs.tool(program) is not None:
        return False
    return any(proto != "unix" for proto in known.below("listen", program))


def factor(workload: str, view: View, known: Known, event: Event) -> tuple[float, bool]:
    """(what to multiply the odds with, whether places elsewhere that always bring new things excuse this one)."""
    if workload.endswith(".service") and not PEOPLE.match(workload):
        return SERVICE, True
    if view.tokens[0] == "exec":
        if view.sort not in ("plain", "scratch", "hidden") and exposed(view.tokens[1], known):
            return SERVICE, False
        if view.sort == "writable" and _TEMPORARY.match(view.path):
            return DROPPED, False
    elif view.sort == "secret" and view.tokens[0] == "file":
        program = view.tokens[1]
        if owns(program, view.path):
            return 4 * WORK, True
        if program not in known.programs or exposed(program, known):
            return DROPPED, False
    return WORK, True
