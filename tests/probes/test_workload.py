"""From cgroup paths and the runtimes' files to the names that people know."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.event import Container
from probes.runtimes import Found, Runtimes, Unfinished, addresses, oci_container, runc_container
from probes.workload import Workloads, generated, name, place
from tests.probes.world import World, docker_state

ID, POD = "0123456789abcdef" * 4, "8f2a6c1e-0000-4000-8000-1234567890ab"
UNDER = POD.replace("-", "_")


@pytest.mark.parametrize(
    "path",
    [
        f"/docker/{ID}",
        f"/system.slice/docker-{ID}.scope",
        f"/system.slice/docker-{ID}.scope/init/child",
        f"/kubepods/burstable/pod{POD}/{ID}",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDER}.slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-pod{UNDER}.slice/crio-{ID}.scope",
        f"/machine.slice/libpod-{ID}.scope/container",
        f"/libpod_parent/libpod-{ID}",
        f"/default/{ID}",
        f"/system.slice/nerdctl-{ID}.scope",
    ],
)
def test_the_id_is_found_wherever_a_runtime_puts_it(path: str) -> None:
    """Docker, containerd, CRI-O, podman, nerdctl; cgroupfs and systemd."""
    assert (ID,) == place(path).containers


@pytest.mark.parametrize(
    ("path", "workload"),
    [
        ("/", "host"),
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/nginx.service/sshd.service", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@.service"),
        ("/system.slice/run-r0123456789abcdef.scope", "run.scope"),
        ("/init.scope", "init.scope"),
        (f"/machine.slice/libpod-conmon-{ID}.scope", "host"),
        ("/user.slice/user-1000.slice/session-4.scope", "session.scope"),
    ],
)
def test_what_is_no_container_is_its_unit(path: str, workload: str) -> None:
    """The outermost unit: below it anybody may make cgroups."""
    here = place(path)

    assert (workload, ()) == (here.workload, here.containers)


def found(**fields: Any) -> Found:
    return Found(Container(ID, **{"runtime": "docker", **fields}), fields.pop("bundle", None))


@pytest.mark.parametrize(
    ("container", "workload"),
    [
        (found(name="web", image="nginx:1"), "web"),
        (found(name="happy_curie", image="registry.local:5000/shop/web:2.1@sha256:12"), "registry.local:5000/shop/web"),
        (found(name="my_web", image="nginx"), "my_web"),
        (
            found(
                name="shop-web-1",
                labels={"com.docker.compose.project": "shop", "com.docker.compose.service": "web"},
            ),
            "shop/web",
        ),
        (found(name="api.1.x8", labels={"com.docker.swarm.service.name": "prod_api"}), "prod_api"),
        (
            found(name="app", namespace="shop", pod="checkout-6d5f9c7b84-x2kqz", runtime="containerd"),
            "shop/checkout:app",
        ),
        (found(name="db", namespace="shop", pod="db-0", runtime="crio"), "shop/db:db"),
        (
            found(name="nginx-1a2b3", image="docker.io/library/nginx:1", labels={"nerdctl/name": "x"}),
            "docker.io/library/nginx",
        ),
        (Found(Container("builder", runtime="runc")), "builder"),
        (Found(Container(ID, runtime="runc"), "/srv/bundles/job/"), "job"),
        (Found(Container(ID, runtime="containerd")), ID[:12]),
    ],
)
def test_a_workload_has_the_name_that_people_gave(container: Found, workload: str) -> None:
    """As INTERFACES says, for each runtime."""
    assert workload == name(container)


def test_dockers_made_up_names_are_told_from_given_ones() -> None:
    """adjective_surname, with a digit when taken; nothing else."""
    assert [True, True, False, False, False] == [
        generated(n) for n in ("zen_lovelace", "eager_bell7", "web_server", "zen", "zen_lovelace_2")
    ]


def bundle(root: Path, space: str, config: dict[str, Any]) -> Path:
    folder = root / "run/containerd/io.containerd.runtime.v2.task" / space / ID
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_containerds_annotations_name_pod_and_container(tmp_path: Path) -> None:
    """No API is asked."""
    annotations = {
        "io.kubernetes.cri.container-name": "app", "io.kubernetes.cri.sandbox-name": "checkout-6d5f9c7b84-x2kqz",
        "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.image-name": "reg/checkout:2",
    }  # fmt: skip
    bundle(tmp_path, "k8s.io", {"annotations": annotations})
    world = World(tmp_path)
    scope = world.workloads.add(9, f"/kubepods/burstable/pod{POD}/{ID}".encode(), 0)

    c = scope.container
    assert c is not None
    assert ("shop/checkout:app", "reg/checkout:2", "checkout", True) == (
        scope.workload,
        c.image,
        c.owner,
        scope.kubernetes,
    )


def test_podmans_name_is_in_its_storage(tmp_path: Path) -> None:
    """The bundle has no name; the list of containers has."""
    storage = tmp_path / "var/lib/containers/storage/overlay-containers"
    (storage / ID / "userdata").mkdir(parents=True)
    (storage / ID / "userdata/config.json").write_text("{}")
    metadata = json.dumps({"image-name": "docker.io/library/redis:7", "name": "cache"})
    (storage / "containers.json").write_text(json.dumps([{"id": ID, "names": ["cache"], "metadata": metadata}]))

    known = Runtimes(tmp_path, proc=None).lookup(ID)

    assert known is not None and ("cache", "podman") == (name(known), known.container.runtime)


def test_a_plain_runc_container_is_known_by_its_cgroup(tmp_path: Path) -> None:
    """cgroupsPath need not hold the id."""
    (tmp_path / "run/runc/builder").mkdir(parents=True)
    state = {"id": "builder", "cgroup_paths": {"": "/sys/fs/cgroup/jobs/x1"}, "config": {"labels": ["bundle=/srv/b"]}}
    (tmp_path / "run/runc/builder/state.json").write_text(json.dumps(state))
    workloads = Workloads(Runtimes(tmp_path, proc=None))

    assert "builder" == workloads.add(5, b"/jobs/x1", 0, by_runtime=True).workload
    assert "builder" == workloads.add(6, b"/jobs/x1/nested", 0).workload


def test_an_engine_elsewhere_is_found_by_its_command_line(tmp_path: Path) -> None:
    """--data-root, and what daemon.json says."""
    runtimes = Runtimes(tmp_path, proc=None)
    folder = tmp_path / "elsewhere/containers" / ID
    folder.mkdir(parents=True)
    (folder / "config.v2.json").write_text(json.dumps(docker_state(ID, name="db")))
    assert runtimes.lookup(ID) is None

    runtimes.learn("dockerd", ["dockerd", f"--data-root={tmp_path}/elsewhere", "--exec-root", "/x"])

    known = runtimes.lookup(ID)
    assert known is not None and "db" == known.container.name


def test_state_that_is_not_roots_is_not_believed(tmp_path: Path) -> None:
    """Who may write a name could take another workload's."""
    world = World(tmp_path)
    folder = world.docker(ID)
    folder.chmod(0o777)

    assert world.workloads.runtimes.lookup(ID) is None


@pytest.mark.parametrize(
    "rubbish", ["", "{", "[]", "null", '{"ID": 5}', '{"ID":{}}', "\ud800".encode("utf-8", "surrogatepass")]
)
def test_rubbish_in_a_state_file_asks_again(tmp_path: Path, rubbish: str | bytes) -> None:
    """Half-written is not absent, and never an exception that escapes."""
    world = World(tmp_path)
    folder = world.docker(ID)
    (folder / "config.v2.json").write_bytes(rubbish if isinstance(rubbish, bytes) else rubbish.encode())

    try:
        assert world.workloads.runtimes.lookup(ID) is None
    except Unfinished:
        pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(json_values, st.sampled_from(["annotations", "process", "linux", "mounts"]))
def test_any_json_is_an_oci_config(value: Any, key: str) -> None:
    """Whatever shape it has, it is read or ignored."""
    oci_container(ID, {key: value}, "runc")
    with_id = {"id": "x", "config": value}
    runc_container(with_id)


def test_addresses_are_neither_loopback_nor_link_local(tmp_path: Path) -> None:
    """From the kernel's own tables of the namespace."""
    (tmp_path / "fib_trie").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n        |-- 172.17.0.2\n           /32 host LOCAL\n"
        "     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 172.17.255.255\n        /32 link BROADCAST\n"
    )
    (tmp_path / "if_inet6").write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fe80000000000000004211fffe000002 05 40 20 80     eth0\n"
        "20010db8000000000000000000000002 05 40 00 80     eth0\n"
    )

    assert ("172.17.0.2", "2001:db8::2") == addresses(tmp_path)


def test_cgroups_that_are_gone_are_let_go(tmp_path: Path) -> None:
    """A host that starts a container a second stays small."""
    world = World(tmp_path)
    for i in range(500):
        id_ = f"{i:064x}"
        cgroup = world.cgroup(f"/docker/{id_}")
        world.rmdir(cgroup, f"/docker/{id_}")
        world.workloads.tick(world.time)
    world.flush(later=20)

    assert 10 > len(world.workloads.by_id)
    assert 10 > len(world.workloads._shared)
