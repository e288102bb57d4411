"""What a real container taught: each is told now, and what comes near it is not."""

from itertools import chain

import pytest

from models.tree import Tree
from tests.models.scenarios import mix
from tests.models.scenarios.seen_live import CASES, SH, Acts, Before
from tests.models.world import Feed, World, proc, told


def learned(before: Before) -> tuple[Feed, World]:
    world, feed = World(), Feed(max="60s")
    feed.give(mix.start(world, 0))
    for second in range(1, 62):
        work = before(world.at(second + 0.5), second)
        feed.give(chain(mix.traffic(world, second, second + 0.4, second, load=4.0), work))
    feed.findings.clear()
    return feed, world


@pytest.mark.parametrize(("before", "word", "act"), [case[1:4] for case in CASES], ids=[case[0] for case in CASES])
def test_it_is_told(before: Before, word: str, act: Acts):
    feed, world = learned(before)

    found = feed.give(act(world.at(90)))

    assert any(word in f.what + f.value for f in found), told(found)


@pytest.mark.parametrize(("before", "near"), [(case[1], case[4]) for case in CASES], ids=[case[0] for case in CASES])
def test_what_comes_near_it_is_not(before: Before, near: Acts):
    feed, world = learned(before)

    assert [] == told(feed.give(near(world.at(90))))


def test_files_removed_from_a_directory_are_one_deviation():
    """Whoever is told of the first hundred files is told once, and how many there were."""
    feed, world = learned(CASES[0][1])
    rm = proc("/bin/rm", "-rf", "/backup", parent=SH)

    found = [feed.give([world.at(90 + n).changed(rm, "unlink", f"/backup/{word}.tgz")]) for n, word in enumerate("abc")]

    assert [1, 1, 1] == [len(told) for told in found]
    assert {"shop/web|novelty|file /bin/rm name /backup/**"} == {told[0].fingerprint for told in found}


def test_what_is_done_once_at_a_start_is_not_forgotten_for_names_that_come_and_go():
    """Several services in a container have more values than fit; its listeners and secrets are in use all the time."""
    tree = Tree(cap=300)
    lasting = (
        ("listen", "/usr/sbin/nginx", "tcp", "any", "80"),
        ("file", "/usr/sbin/nginx", "read", "etc", "nginx", "nginx.conf"),
        ("file", "/usr/bin/python3.11", "read", "run", "secrets", "!!db"),
    )
    for tokens in lasting:
        tree.learn(tokens, 0).n = 1
    for n in range(600):
        tree.learn(("file", f"/usr/bin/p{n % 60}", "read", f"d{n}", "x"), 10 + n).n = 1

        if tree.size > tree.cap:
            tree.shrink(10 + n)

    assert [True] * 3 == [bool((node := tree.find(tokens)) and node.n) for tokens in lasting]
    assert tree.size <= tree.cap and tree.forgotten > 100
