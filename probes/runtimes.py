"""What container runtimes say about a container in their state on disk: Docker, containerd, CRI-O, podman, runc.

No client library and no socket: the files are there before the container's first exec, and reading them asks nobody.
A file that is missing means "not mine", a file that cannot be read yet means "ask again" (Unfinished).
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from probes.event import Container

LARGEST = 8 << 20
"""Bytes of one state file; a larger one is not read."""
LABELS, LABEL = 32, 200
"""Labels kept, and characters of each: they travel with every batch."""
ENGINE_SOCKETS = {"docker.sock", "containerd.sock", "crio.sock", "podman.sock", "cri-dockerd.sock"}
SOCKET_FOLDERS = {"/", "/run", "/var/run", "/run/containerd", "/run/docker", "/run/crio", "/run/podman"}
BINARIES = {
    "runc", "crun", "youki", "runsc", "containerd", "containerd-shim", "containerd-shim-runc-v1",
    "containerd-shim-runc-v2", "dockerd", "docker-proxy", "podman", "conmon", "conmonrs", "crio", "buildkitd",
    "buildah", "nerdctl", "ctr", "kubelet", "cri-dockerd",
}  # fmt: skip
"""Names of programs that prepare containers. Only a root-owned file outside any container counts as one."""
HEX = re.compile(r"[0-9a-f]{64}")
ISO = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?")


class Unfinished(Exception):
    """A state file is there and is not (yet) what it should be."""


@dataclass(frozen=True, slots=True)
class Found:
    """A container as its runtime describes it, and what its naming needs beyond that."""

    container: Container
    bundle: str | None = None
    """Folder that the container was started from; plain runc has nothing else to tell it by."""
    pid: int = 0
    """Its first process, where the state says so."""
    host_network: bool = False
    sandbox: bool = False
    """A pod's pause container."""


def engine_socket(mounts: tuple[str, ...]) -> bool:
    """Does a mount give the container a runtime's socket?

    >>> engine_socket(("/srv", "/var/run/docker.sock")), engine_socket(("/srv/docker",))
    (True, False)
    """
    for mount in mounts:
        for path in {os.path.normpath(mount), os.path.realpath(mount)}:
            if os.path.basename(path) in ENGINE_SOCKETS or path in SOCKET_FOLDERS:
                return True
    return False


def read_json(path: Path | str) -> Any:
    """The file's content, None where there is no file; Unfinished where it is no JSON."""
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unfinished(f"{path}: {error.strerror}") from None
    if len(raw) > LARGEST:
        raise Unfinished(f"{path}: larger than {LARGEST} bytes")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unfinished(f"{path}: {error}") from None


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return value.encode("utf-8", "backslashreplace").decode()[:4096]


def _labels(value: Any) -> dict[str, str]:
    known = sorted(_map(value).items(), key=lambda item: (not str(item[0]).startswith(("com.docker", "io.kube")), item))
    return {str(_text(k)): v[:LABEL] for k, raw in known[:LABELS] if (v := _text(raw)) is not None}


def _started(value: Any) -> int:
    match = ISO.match(value) if isinstance(value, str) else None
    if not match or match[1] < "1971":
        return 0
    try:
        seconds = int(datetime.fromisoformat(match[1] + "+00:00").timestamp())
    except ValueError:
        return 0
    return seconds * 1_000_000_000 + int((match[2] or "0").ljust(9, "0"))


@dataclass(frozen=True, slots=True)
class Pod:
    """What annotations and labels say of a container's place in Kubernetes."""

    namespace: str | None
    name: str | None
    container: str | None
    image: str | None
    sandbox: bool


def pod_of(words: dict[str, Any]) -> Pod:
    """From the annotations of containerd's CRI and CRI-O, and the labels of cri-dockerd."""

    def first(*keys: str) -> str | None:
        return next((v for k in keys if (v := _text(words.get(k)))), None)

    kind = first("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType", "io.kubernetes.docker.type")
    return Pod(
        first("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"),
        first("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"),
        first("io.kubernetes.cri.container-name", "io.kubernetes.container.name"),
        first("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"),
        kind in ("sandbox", "podsandbox"),
    )


def docker_container(id_: str, config: Any, host: Any) -> Found:
    """From Docker's config.v2.json and hostconfig.json."""
    config, host = _map(config), _map(host)
    if config.get("ID") != id_:
        raise Unfinished(f"docker's state of {id_[:12]} is about another container")
    inner, state, network = _map(config.get("Config")), _map(config.get("State")), _map(config.get("NetworkSettings"))
    labels = _map(inner.get("Labels"))
    addresses = []
    for endpoint in _map(network.get("Networks")).values():
        addresses += [_text(_map(endpoint).get(key)) for key in ("IPAddress", "GlobalIPv6Address")]
    mounts = [_text(_map(m).get("Source")) for m in _map(config.get("MountPoints")).values()]
    mounts += [bind.split(":")[0] for bind in _list(host.get("Binds")) if isinstance(bind, str) and bind[:1] == "/"]
    pod = pod_of(labels)
    pid = state.get("Pid")
    container = Container(
        id_,
        pod.container or (_text(config.get("Name")) or "").lstrip("/") or None,
        _text(inner.get("Image")),
        _text(config.get("Image")),
        tuple(sorted({a for a in addresses if a})),
        _labels(labels),
        "docker",
        pod.namespace,
        pod.name,
        None,
        host.get("Privileged") is True,
        tuple(sorted({m for m in mounts if m})),
        _started(state.get("StartedAt")),
    )
    mode = host.get("NetworkMode")
    return Found(container, None, pid if isinstance(pid, int) else 0, mode == "host", pod.sandbox)


def oci_container(id_: str, config: Any, runtime: str, bundle: str | None = None) -> Found:
    """From an OCI bundle's config.json."""
    config = _map(config)
    words = _map(config.get("annotations"))
    pod = pod_of(words)
    process, linux = _map(config.get("process")), _map(config.get("linux"))
    bounding = _map(process.get("capabilities")).get("bounding")
    mounts = [_bind(_map(m)) for m in _list(config.get("mounts"))]
    network = next((_map(n) for n in _list(linux.get("namespaces")) if _map(n).get("type") == "network"), None)
    container = Container(
        id_,
        pod.container or _text(words.get("nerdctl/name")) or _text(words.get("io.podman.annotations.name")),
        pod.image or _text(words.get("nerdctl/image")),
        None,
        tuple(ip for ip in [_text(words.get("io.kubernetes.cri-o.IP.0"))] if ip),
        _labels(words),
        runtime,
        pod.namespace,
        pod.name,
        None,
        _privileged(bounding),
        tuple(sorted({m for m in mounts if m})),
    )
    return Found(container, bundle, 0, network is None and bool(linux.get("namespaces")), pod.sandbox)


def _bind(mount: dict[str, Any]) -> str | None:
    options = mount.get("options")
    kind = mount.get("type") or mount.get("device")
    if kind == "bind" or (isinstance(options, list) and ("bind" in options or "rbind" in options)):
        return _text(mount.get("source"))
    return None


def _privileged(bounding: Any) -> bool:
    # No engine hands both of these out unless asked for everything.
    return isinstance(bounding, list) and {"CAP_SYS_ADMIN", "CAP_SYS_MODULE"} <= {str(c).upper() for c in bounding}


def runc_container(state: Any) -> Found:
    """From runc's own state.json."""
    state = _map(state)
    id_ = _text(state.get("id"))
    if id_ is None:
        raise Unfinished("runc's state has no id")
    config = _map(state.get("config"))
    labels = [label for label in _list(config.get("labels")) if isinstance(label, str)]
    words = dict(label.partition("=")[::2] for label in labels)
    mounts = [_bind(_map(m)) for m in _list(config.get("mounts"))]
    bounding = _map(config.get("capabilities")).get("Bounding")
    network = next((_map(n) for n in _list(config.get("namespaces")) if _map(n).get("type") == "NEWNET"), None)
    pid = state.get("init_process_pid")
    bundle = _text(words.pop("bundle", None))
    container = Container(
        id_,
        None,
        labels=_labels(words),
        runtime="runc",
        privileged=_privileged(bounding),
        mounts=tuple(sorted({m for m in mounts if m})),
        started=_started(state.get("created")),
    )
    return Found(container, bundle, pid if isinstance(pid, int) else 0, network is None)


class Runtimes:
    """Where the runtimes of this machine keep their state, and what it says of one container.

    `root` is the file system's root, for tests. Folders that are not the standard ones are learned from the command
    lines of running engines (`learn`). Only folders that root owns are believed: state is how a workload gets its name.
    """

    def __init__(self, root: Path = Path("/"), proc: Path | None = Path("/proc")) -> None:
        self.root = root
        self.docker: list[Path] = [root / "var/lib/docker"]
        self.containerd: list[Path] = [root / "run/containerd"]
        self.storage: list[Path] = [root / "var/lib/containers/storage", root / "run/containers/storage"]
        self.runc: list[Path] = [root / "run/runc", root / "run/crun"]
        self._daemon_json(root / "etc/docker/daemon.json")
        self._containerd_toml(root / "etc/containerd/config.toml")
        if proc is not None:
            self._running(proc)

    def _running(self, proc: Path) -> None:
        for entry in proc.iterdir():
            if not entry.name.isdigit():
                continue
            with suppress(OSError):
                if entry.stat().st_uid == 0 and (comm := (entry / "comm").read_text().strip()) in BINARIES:
                    argv = (entry / "cmdline").read_bytes().decode("utf-8", "backslashreplace").split("\0")[:-1]
                    if not self._contained(entry):
                        self.learn(comm, argv, os.readlink(entry / "cwd"))

    @staticmethod
    def _contained(entry: Path) -> bool:
        return HEX.search((entry / "cgroup").read_text()) is not None

    def learn(self, program: str, argv: list[str] | tuple[str, ...], cwd: str = "/") -> None:
        """A runtime's command line: its folders, where they are not the standard ones."""
        options = dict(command_options(argv))

        def folder(*names: str) -> Path | None:
            value = next((options[n] for n in names if options.get(n)), None)
            return Path(os.path.normpath(os.path.join(cwd, value))) if value else None

        if program == "dockerd":
            if file := folder("--config-file"):
                self._daemon_json(file)
            self._add(self.docker, folder("--data-root", "-g", "--graph"))
            if run := folder("--exec-root"):
                self._add(self.containerd, run / "containerd/daemon")
        elif program == "containerd":
            if file := folder("--config", "-c"):
                self._containerd_toml(file)
            self._add(self.containerd, folder("--state"))
        elif program in ("runc", "crun"):
            self._add(self.runc, folder("--root"))
        elif program == "podman":
            self._add(self.storage, folder("--root"))
            self._add(self.storage, folder("--runroot"))

    @staticmethod
    def _add(folders: list[Path], folder: Path | None) -> None:
        if folder is not None and folder not in folders and len(folders) < 64:
            folders.append(folder)

    def _daemon_json(self, file: Path) -> None:
        with suppress(Unfinished):
            config = _map(read_json(file))
            for value in (_text(config.get("data-root")), _text(config.get("graph"))):
                self._add(self.docker, Path(value) if value else None)
            if value := _text(config.get("exec-root")):
                self._add(self.containerd, Path(value) / "containerd/daemon")

    def _containerd_toml(self, file: Path) -> None:
        with suppress(OSError, UnicodeDecodeError):
            match = re.search(r'^\s*state\s*=\s*"([^"]+)"', file.read_text()[:LARGEST], re.MULTILINE)
            self._add(self.containerd, Path(match[1]) if match else None)

    def lookup(self, id_: str) -> Found | None:
        """The container with this 64-digit id; None where no runtime knows it. Raises Unfinished: ask again."""
        for look in (self._docker, self._containerd, self._storage, self._runc):
            if found := look(id_):
                return found
        return None

    def _docker(self, id_: str) -> Found | None:
        for root in self.docker:
            folder = f"{root}/containers/{id_}"  # not a Path: thousands of containers may be asked for
            config = read_json(f"{folder}/config.v2.json")
            if config is not None and _trusted(folder):
                host = read_json(f"{folder}/hostconfig.json")
                return docker_container(id_, config, host)
        return None

    def _containerd(self, id_: str) -> Found | None:
        for state in self.containerd:
            tasks = f"{state}/io.containerd.runtime.v2.task"
            for space in _names(tasks):
                bundle = f"{tasks}/{space}/{id_}"
                config = read_json(f"{bundle}/config.json")
                if config is not None and _trusted(bundle):
                    found = oci_container(id_, config, "docker" if space == "moby" else "containerd", bundle)
                    if space == "moby" and found.container.name is None:
                        raise Unfinished(f"docker has not written its state of {id_[:12]} yet")
                    return found
        return None

    def _storage(self, id_: str) -> Found | None:
        for root in self.storage:
            for kind in _names(root, "-containers"):
                folder = f"{root}/{kind}/{id_}/userdata"
                config = read_json(f"{folder}/config.json")
                if config is None or not _trusted(folder):
                    continue
                words = _map(_map(config).get("annotations"))
                runtime = "crio" if any(str(k).startswith("io.kubernetes.cri-o.") for k in words) else "podman"
                found = oci_container(id_, config, runtime, folder)
                return self._podman_name(found, id_) if runtime == "podman" else found
        return None

    def _podman_name(self, found: Found, id_: str) -> Found:
        for root in self.storage:
            for kind in _names(root, "-containers"):
                for file in ("containers.json", "volatile-containers.json"):
                    for row in map(_map, _list(read_json(root / kind / file))):
                        if row.get("id") == id_:
                            return _podman(found, row)
        return found

    def _runc(self, id_: str) -> Found | None:
        for root in self.runc:
            state = read_json(f"{root}/{id_}/state.json")
            if state is not None and _trusted(root / id_):
                return runc_container(state)
        return None

    def plain(self, name: str) -> str | None:
        """The id of a plain runc container whose cgroup has this name: known before its state is complete."""
        if "/" in name or name.startswith("."):
            return None
        name = name.removesuffix(".scope").removeprefix("runc-")
        return name if any((root / name).is_dir() and _trusted(root / name) for root in self.runc) else None

    def by_cgroup(self, path: str) -> Found | None:
        """The plain runc container whose state names this cgroup: cgroupsPath need not hold its id."""
        for root in self.runc:
            for id_ in _names(root):
                with suppress(Unfinished):
                    state = _map(read_json(root / id_ / "state.json"))
                    paths = [str(p) for p in _map(state.get("cgroup_paths")).values()]
                    if any(p == path or p.endswith(path) for p in paths) and path != "/" and _trusted(root / id_):
                        return runc_container(state)
        return None


def _podman(found: Found, row: dict[str, Any]) -> Found:
    c = found.container
    try:
        metadata = _map(json.loads(row["metadata"])) if isinstance(row.get("metadata"), str) else {}
    except ValueError:
        metadata = {}
    names = [n for n in map(_text, _list(row.get("names"))) if n]
    name = c.name or _text(metadata.get("name")) or (names[0] if names else None)
    image = c.image or _text(metadata.get("image-name"))
    container = Container(
        c.id, name, image, _text(row.get("image")), c.ip, c.labels, c.runtime, c.namespace, c.pod, c.owner,
        c.privileged, c.mounts, c.started,
    )  # fmt: skip
    return Found(container, found.bundle, found.pid, found.host_network, found.sandbox)


def command_options(argv: list[str] | tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """What a command line says after its dashes."""
    for at, word in enumerate(argv):
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            yield name, value if equals else (argv[at + 1] if at + 1 < len(argv) else "")


def _names(folder: Path | str, suffix: str = "") -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(suffix))[:4096]
    except OSError:
        return []


def _trusted(folder: Path | str) -> bool:
    try:
        status = os.stat(folder)
    except OSError:
        return False
    return status.st_uid == 0 and not status.st_mode & 0o002


def trusted_binary(exe: str) -> bool:
    """A file that only root could have put there."""
    try:
        status = os.stat(exe)
    except (OSError, ValueError):
        return False
    return status.st_uid == 0 and not status.st_mode & 0o022


def addresses(net: Path) -> tuple[str, ...]:
    """The addresses of a network namespace, from a `/proc/PID/net` folder; never loopback or link-local ones."""
    found: list[str] = []
    with suppress(OSError):
        last = ""
        for line in (net / "fib_trie").read_text().splitlines():
            word = line.strip()
            if word.startswith("|-- "):
                last = word[4:]
            elif word == "/32 host LOCAL" and not last.startswith("127.") and last not in found:
                found.append(last)
    with suppress(OSError):
        for line in (net / "if_inet6").read_text().splitlines():
            raw, _, _, scope, *_ = line.split()
            if scope == "00":
                from ipaddress import IPv6Address

                found.append(str(IPv6Address(int(raw, 16))))
    return tuple(found[:16])
