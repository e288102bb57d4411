"""From a cgroup to a workload: which container, systemd unit or session it is, and by which name people know it.

Nested cgroups belong to the container (or unit) above them: who may write below his own cgroup cannot take another's
name. Replicas and restarts have one name.
"""

import heapq
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from probes.event import Container
from probes.runtimes import Found, Runtimes, Unfinished, addresses, oci_container, read_json
from probes.text import text

CONTAINER = re.compile(r"(?:(?P<prefix>.*)[-:])?(?P<id>[0-9a-f]{64})(?:\.scope|\.service)?")
UNIT = re.compile(r".+\.(?:service|scope)")
SESSION = re.compile(r"session-[0-9a-z]+\.scope")
USER = re.compile(r"user-(\d+)\.slice")
PARENT = re.compile(
    r"pod[0-9a-f-]{36}|kubepods|besteffort|burstable|guaranteed|docker|libpod_parent|buildkit|.*\.slice|conmon"
    r"|.*conmon-[0-9a-f]{64}(?:\.scope)?"
)
"""Cgroups that runtimes make to hold containers, and that are none."""
# The pod's hash and the replica set's are made of these only (k8s.io/apimachinery/pkg/util/rand).
SAFE = "[bcdfghjklmnpqrstvwxz2456789]"
_ADJECTIVES = """
    admiring adoring affectionate agitated amazing angry awesome beautiful blissful bold boring brave busy charming
    clever compassionate competent condescending confident cool cranky crazy dazzling determined distracted dreamy
    eager ecstatic elastic elated elegant eloquent epic exciting fervent festive flamboyant focused friendly frosty
    funny gallant gifted goofy gracious great happy hardcore heuristic hopeful hungry infallible inspiring
    intelligent interesting jolly jovial keen kind laughing loving lucid magical modest musing mystifying naughty
    nervous nice nifty nostalgic objective optimistic peaceful pedantic pensive practical priceless quirky quizzical
    recursing relaxed reverent romantic sad serene sharp silly sleepy small stoic strange stupefied suspicious sweet
    tender thirsty trusting unruffled upbeat vibrant vigilant vigorous wizardly wonderful xenodochial youthful
    zealous zen
"""
ADJECTIVES = frozenset(_ADJECTIVES.split())
"""The first halves of the names that Docker and podman make up: adjective_surname, with a digit where that is taken."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a cgroup path alone tells."""

    workload: str
    """The name for what is no container."""
    containers: tuple[str, ...] = ()
    """Ids of containers in the path, the innermost first."""
    user: int | None = None
    """Whose login session it is."""


def place(path: str) -> Place:
    """Read a cgroup path.

    >>> place("/system.slice/nginx.service/worker").workload, place("/user.slice/user-0.slice/session-3.scope").user
    ('nginx.service', 0)
    """
    parts = [part for part in path.split("/") if part]
    ids = []
    for at, part in enumerate(parts):
        match = CONTAINER.fullmatch(part)
        if match and not (match["prefix"] or "").endswith("conmon"):
            ids.append(match["id"])
        elif part == "buildkit" and at + 1 < len(parts):
            ids.append(parts[at + 1])
    user = None
    for part in parts:
        if match := USER.fullmatch(part):
            user = int(match[1])
        elif UNIT.fullmatch(part) and not CONTAINER.fullmatch(part):
            return Place(_unit(part), tuple(reversed(ids)), user)
    return Place("host", tuple(reversed(ids)), user)


def _unit(name: str) -> str:
    """
    >>> _unit("getty@tty1.service"), _unit("run-r1a2b3c4d.scope"), _unit("user@1000.service")
    ('getty@.service', 'run.scope', 'user@.service')
    """
    stem, _, kind = name.rpartition(".")
    if SESSION.fullmatch(name):
        return "session.scope"
    if re.fullmatch(r"run-(?:[rup]?[0-9a-f-]+|\w+-\d+)", stem):
        return f"run.{kind}"
    if "@" in stem:
        return f"{stem.partition('@')[0]}@.{kind}"
    return name


def without_tag(image: str) -> str:
    """
    >>> without_tag("registry.local:5000/shop/web:2.1"), without_tag("nginx@sha256:12ab"), without_tag("nginx")
    ('registry.local:5000/shop/web', 'nginx', 'nginx')
    """
    image = image.partition("@")[0]
    head, slash, last = image.rpartition("/")
    return head + slash + last.partition(":")[0]


def owner(pod: str) -> str:
    """Whose pod this is, from its name alone: the API is not asked.

    >>> owner("checkout-6d5f9c7b84-x2kqz"), owner("db-0"), owner("backup-28371540-fz8xk"), owner("agent-7xk2p")
    ('checkout', 'db', 'backup', 'agent')
    """
    for ending in (rf"-{SAFE}{{6,10}}-{SAFE}{{5}}", rf"-\d{{8,10}}-{SAFE}{{5}}", rf"-{SAFE}{{5}}", r"-\d+"):
        if match := re.fullmatch(rf"(.+?){ending}", pod):
            return match[1]
    return pod


def generated(name: str) -> bool:
    """Did Docker or podman make this name up?

    >>> generated("happy_curie"), generated("happy_curie3"), generated("shop_web"), generated("happy_curie_old")
    (True, True, False, False)
    """
    first, _, second = name.partition("_")
    return first in ADJECTIVES and re.fullmatch(r"[a-z]+\d?", second) is not None


def name(found: Found) -> str:
    """The workload of a container, as INTERFACES names it."""
    c, labels = found.container, found.container.labels
    if c.namespace and c.pod:
        return f"{c.namespace}/{c.owner or owner(c.pod)}:{'pause' if found.sandbox else c.name or 'unknown'}"
    project, service = labels.get("com.docker.compose.project"), labels.get("com.docker.compose.service")
    if project and service:
        return f"{project}/{service}"
    if service := labels.get("com.docker.swarm.service.name"):
        return service
    image = without_tag(c.image) if c.image else None
    if c.name and image and (generated(c.name) or _nerdctl(c, image)):
        return image
    if c.name:
        return c.name
    if c.runtime == "runc" and found.bundle and _random(c.id):
        return os.path.basename(os.path.normpath(found.bundle)) or c.id
    if image:
        return image
    return c.id[:12] if _random(c.id) else c.id


def _nerdctl(c: Container, image: str) -> bool:
    base = image.rpartition("/")[2]
    return "nerdctl/name" in c.labels and re.fullmatch(re.escape(base) + r"-[0-9a-f]{5}", c.name or "") is not None


def _random(id_: str) -> bool:
    return re.fullmatch(r"[0-9a-f-]{12,}", id_) is not None


class Scope:
    """One container, unit or session: what its cgroups have in common."""

    __slots__ = (
        "by_vpid", "calls", "cgroups", "cid", "container", "counts", "created", "default", "dns",
        "errors", "exists", "first", "found", "held", "host_network", "ip_tries", "path", "resolved",
        "told", "tries", "until", "workload",
    )  # fmt: skip

    def __init__(self, workload: str, path: str, created: int, cid: str | None = None) -> None:
        self.workload = workload
        self.default = workload
        self.path = path
        self.created = created
        self.cid = cid
        self.container: Container | None = Container(cid) if cid else None
        self.found: Found | None = None
        self.resolved = cid is None
        self.exists = True
        self.first = 0
        """Pid of the container's first process; 0: nothing ran in it yet."""
        self.counts: dict[str, int] = {}
        """What happened in the second that ends at `until`."""
        self.calls: dict[int, int] = {}
        self.errors: dict[int, int] = {}
        self.until = 0
        self.held = False
        """Have its first events waited for its name?"""
        self.told = False
        """Was container_start told?"""
        self.host_network = False
        self.tries = 0
        self.cgroups = 0
        """How many cgroups are this scope's."""
        self.ip_tries = 0
        self.by_vpid: dict[int, int] = {}
        self.dns: OrderedDict[str, tuple[str, int]] = OrderedDict()
        """Address -> the name that led to it, and until when that is believed."""

    @property
    def kubernetes(self) -> bool:
        return "/kubepods" in self.path or bool(self.container and self.container.pod)

    def inside(self, other: "Scope") -> bool:
        """Are both the same container?"""
        return self is other or (self.cid is not None and self.cid == other.cid)


SECOND = 1_000_000_000
MOST_SCOPES = 16_384
PATIENCE = 10 * SECOND
"""ns. How long a container without state is asked for; a runtime writes it within milliseconds."""
FIRST_ASK, LAST_ASK = 2_000_000, 2 * SECOND
"""ns. Between two looks for a container's state: each time twice as long."""
FIRST_LOOK, LAST_LOOK = 20_000_000, 60 * SECOND
"""The same for its addresses, which a container without a network never has."""


class _Later:
    """Scopes, each to be looked at when it is due: a thousand that wait cost nothing."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Scope]] = []
        self._number = 0

    def add(self, due: int, scope: Scope) -> None:
        self._number += 1
        heapq.heappush(self._heap, (due, self._number, scope))

    def due(self, now: int) -> Scope | None:
        """One that is due, and no longer here; None: none is."""
        return heapq.heappop(self._heap)[2] if self._heap and self._heap[0][0] <= now else None


class Workloads:
    """Cgroup id -> Scope. Fed by the kernel's mkdir and rmdir, and by one walk at the start."""

    def __init__(self, runtimes: Runtimes, cgroups: Path | None = None, proc: Path = Path("/proc")) -> None:
        self.runtimes = runtimes
        self.cgroups = cgroups
        self.proc = proc
        self.host = Scope("host", "/", 0)
        self.by_id: dict[int, Scope] = {}
        self.paths: dict[int, str] = {}
        self._shared: dict[str, Scope] = {"host": self.host}
        self._by_path: dict[str, Scope] = {}
        """Containers by their topmost cgroup."""
        self._pending: dict[str, Scope] = {}
        self._without_ip: dict[str, Scope] = {}
        self._gone: OrderedDict[int, int] = OrderedDict()
        self._users: dict[int, str] = {}
        self._users_at = -1.0
        self._walked = 0
        self._born = 0
        self._asked, self._looked = _Later(), _Later()
        """Of `_pending` and of `_without_ip`; who is there no more is passed over."""
        self._now = 0
        self.unfinished = 0
        """State files that could not be read when asked."""
        self.unresolved = 0
        """Containers that no runtime's state knew in time: named by their id."""
        self.forgotten = 0

    def walk(self, now: int) -> None:
        """Every cgroup that exists."""
        self._walked = now
        if self.cgroups is None:
            return
        base = str(self.cgroups)
        for folder, _, _ in os.walk(base):
            try:
                id_ = os.stat(folder).st_ino
            except OSError:
                continue
            if id_ not in self.by_id:
                self.add(id_, (folder[len(base) :] or "/").encode(errors="surrogateescape"), now)

    def get(self, id_: int, now: int = 0) -> Scope:
        """The scope of a cgroup; one that nobody announced is looked for, once a second at most."""
        scope = self.by_id.get(id_)
        if scope is None:
            if now - self._walked > SECOND:
                self.walk(now)
            scope = self.by_id.get(id_)
        return scope if scope is not None else self.host

    def add(self, id_: int, path: bytes, now: int, *, by_runtime: bool = False, bundle: Path | None = None) -> Scope:
        """A cgroup was made. `by_runtime`: by a container runtime, so it is a container's whatever its name.
        `bundle`: where that runtime takes the container from, if it is plain runc."""
        readable = text(path)
        known = self.by_id.get(id_)
        if known is not None and self.paths.get(id_) == readable:
            return known
        scope = self._scope(readable, now, by_runtime, bundle)
        self._gone.pop(id_, None)
        if known is not None:
            self.forget(id_)
        scope.cgroups += 1
        self.by_id[id_] = scope
        self.paths[id_] = readable
        while len(self.by_id) > MOST_SCOPES:
            oldest = next(iter(self._gone)) if self._gone else next(iter(self.by_id))
            self.forget(oldest)
            self.forgotten += 1
        return scope

    def remove(self, id_: int, now: int) -> None:
        """A cgroup went; late records still find it."""
        if id_ in self.by_id:
            self._gone[id_] = now
            scope = self.by_id[id_]
            if scope.cid and self.paths.get(id_) == scope.path:
                scope.exists = False

    def forget(self, id_: int) -> None:
        scope = self.by_id.pop(id_, None)
        self.paths.pop(id_, None)
        self._gone.pop(id_, None)
        if scope is None:
            return
        scope.cgroups -= 1
        if scope.cgroups <= 0 and scope is not self.host:
            key = scope.cid or scope.default
            for table in (self._shared, self._pending, self._without_ip):
                if table.get(key) is scope:
                    del table[key]
            if self._by_path.get(scope.path) is scope:
                del self._by_path[scope.path]

    def tick(self, now: int) -> None:
        """Ask again for what is not known yet and due; let go of what is long gone."""
        self._now = now
        while (scope := self._asked.due(now)) is not None:
            self._ask(scope, now)
        while (scope := self._looked.due(now)) is not None:
            self._look(scope, now)
        while self._gone and now - next(iter(self._gone.values())) > 5_000_000_000:
            self.forget(next(iter(self._gone)))

    def _ask(self, scope: Scope, now: int) -> None:
        """The runtimes' state, for a container that is not known yet."""
        key = scope.cid or ""
        if self._pending.get(key) is not scope:
            return
        self._resolve(scope, now)
        if scope.resolved or now - scope.created > PATIENCE:
            self._pending.pop(key, None)
            self.unresolved += not scope.resolved
        else:
            self._asked.add(now + min(FIRST_ASK << scope.tries, LAST_ASK), scope)

    def _look(self, scope: Scope, now: int) -> None:
        """The addresses, for a container that has none yet."""
        key = scope.cid or ""
        if self._without_ip.get(key) is not scope:
            return
        scope.ip_tries += 1
        shares = self._address(scope)
        known = scope.container is not None and scope.container.ip
        age = now - scope.created
        if not scope.exists or known or age > 60 * PATIENCE or (shares and age > PATIENCE):
            del self._without_ip[key]
        else:
            self._looked.add(now + min(FIRST_LOOK << min(scope.ip_tries, 12), LAST_LOOK), scope)

    @property
    def hurry(self) -> bool:
        """Is a container being born, whose state may be gone again in milliseconds?"""
        return bool(self._pending) and self._now - self._born < SECOND // 4

    def pending(self, scope: Scope) -> bool:
        return not scope.resolved and (scope.cid or "") in self._pending

    def session(self, uid: int) -> Scope:
        """The login session of a user, where there is no systemd to give it a cgroup."""
        return self._share(f"ssh:{self.user(uid)}", "/", 0)

    def user(self, uid: int) -> str:
        """A user's name by /etc/passwd alone: a directory service could block."""
        try:
            changed = os.stat("/etc/passwd").st_mtime
        except OSError:
            changed = 0.0
        if changed != self._users_at:
            self._users_at = changed
            self._users = dict(_users(Path("/etc/passwd")))
        return self._users.get(uid, str(uid))

    def _scope(self, path: str, now: int, by_runtime: bool, bundle: Path | None) -> Scope:
        above = self._above(path)
        if above is not None and above.cid is not None:
            return above
        here = place(path)
        for id_ in here.containers:
            if (known := self._shared.get(id_)) is not None and known.exists:
                return known
        if here.containers:
            return self._container(here, path, now)
        last = path.rpartition("/")[2]
        if last and here.workload == "host" and (plain := self.runtimes.plain(last)):
            return self._plain(plain, path, now, bundle)
        if last and by_runtime and here.workload == "host" and not PARENT.fullmatch(last):
            found = self.runtimes.by_cgroup(path)
            return self._plain(found.container.id if found else last, path, now, bundle)
        if here.user is not None and here.workload == "session.scope":
            return self._share(f"ssh:{self.user(here.user)}", path, now)
        if here.user is not None:
            return self._share(f"user:{self.user(here.user)}", path, now)
        return self._share(here.workload, path, now)

    def _above(self, path: str) -> Scope | None:
        """The container that this cgroup is nested in."""
        for parent in _parents(path):
            scope = self._by_path.get(parent)
            if scope is not None and scope.exists:
                return scope
        return None

    def _container(self, here: Place, path: str, now: int) -> Scope:
        for id_ in here.containers:
            scope = self._new_container(id_, id_[:12], path, now)
            if scope.resolved or id_ == here.containers[-1]:
                return scope
            self._shared.pop(id_, None)
            self._pending.pop(id_, None)
            self._by_path.pop(path, None)
        raise AssertionError("no container in the path")

    def _new_container(self, cid: str, fallback: str, path: str, now: int) -> Scope:
        scope = self._shared[cid] = self._by_path[path] = Scope(fallback, path, now, cid)
        self._pending[cid] = scope
        self._asked.add(now, scope)
        self._born = now
        self._resolve(scope, now)
        return scope

    def _plain(self, id_: str, path: str, now: int, bundle: Path | None) -> Scope:
        """Plain runc: its state comes late, and is gone with the container; its bundle is there now."""
        scope = self._new_container(id_, id_, path, now)
        if scope.container is not None and scope.container.runtime is None:
            scope.container = Container(id_, runtime="runc")
        if not scope.resolved and bundle is not None:
            try:
                config = read_json(bundle / "config.json")
            except Unfinished:
                self.unfinished += 1
                config = None
            if config is not None:
                self.take(scope, oci_container(id_, config, "runc", str(bundle)))
        return scope

    def _share(self, workload: str, path: str, now: int) -> Scope:
        scope = self._shared.get(workload)
        if scope is None:
            scope = self._shared[workload] = Scope(workload, path, now)
        return scope

    def _resolve(self, scope: Scope, now: int) -> None:
        assert scope.cid is not None
        scope.tries += 1
        try:
            found = self.runtimes.lookup(scope.cid)
            if found is None and scope.tries % 8 == 2:
                found = self.runtimes.by_cgroup(scope.path)
        except Unfinished:
            self.unfinished += 1
            return
        if found is None:
            if scope.tries == 3:  # no runtime's: its addresses can be known all the same
                self._seek(scope)
            return
        self.take(scope, found)

    def take(self, scope: Scope, found: Found) -> None:
        """What a runtime's state says of a container."""
        container = found.container
        if container.pod and container.owner is None:
            container = msgspec.structs.replace(container, owner=owner(container.pod))
        scope.found = found
        scope.container = container
        scope.workload = name(found)
        scope.host_network = found.host_network
        scope.resolved = True
        self._pending.pop(scope.cid or "", None)
        if not container.ip:
            self._seek(scope)

    def _seek(self, scope: Scope) -> None:
        """Its addresses are still to be found."""
        if self._without_ip.get(scope.cid or "") is not scope:
            self._without_ip[scope.cid or ""] = scope
            self._looked.add(0, scope)

    def _address(self, scope: Scope) -> bool:
        """The container's addresses: from Docker's state, else from the network of a process inside. Whether that is
        the machine's own network, so that there are none to be found."""
        container = scope.container
        assert container is not None
        ip: tuple[str, ...] = ()
        shares = False
        if container.runtime == "docker" and scope.cid and not scope.host_network:
            try:
                found = self.runtimes.lookup(scope.cid)
            except Unfinished:
                self.unfinished += 1
                found = None
            ip = found.container.ip if found else ()
        if not ip:
            for pid in self._pids(scope):
                try:
                    host = os.stat(self.proc / "self/ns/net").st_ino
                    own = os.stat(self.proc / str(pid) / "ns/net").st_ino
                except OSError:
                    continue
                if own != host or scope.host_network:
                    ip = addresses(self.proc / str(pid) / "net")
                    break
                shares = True
        if ip:
            scope.container = msgspec.structs.replace(container, ip=ip)
        return shares

    def _pids(self, scope: Scope) -> list[int]:
        pids = [scope.first] if scope.first else []
        if self.cgroups is not None:
            try:
                with open(f"{self.cgroups}{scope.path}/cgroup.procs", "rb") as file:
                    raw = file.read()
                pids += [int(word) for word in raw.split()[:4]]
            except (OSError, ValueError):
                pass
        return pids


def _parents(path: str) -> Iterator[str]:
    while (path := path.rpartition("/")[0]) not in ("", "/"):
        yield path


def _users(file: Path) -> Iterator[tuple[int, str]]:
    try:
        lines = file.read_bytes().decode("utf-8", "backslashreplace").splitlines()
    except OSError:
        return
    for line in reversed(lines):
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdigit():
            yield int(fields[2]), fields[0]


def cgroup_root(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """Where cgroup v2 is mounted; None: nowhere."""
    for line in mountinfo.read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 ") and left.split()[3] == "/":
            return Path(left.split()[4])
    return None
