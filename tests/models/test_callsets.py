"""Sets of system calls per program: what of them is told, and what is not."""

import random

import msgspec
import pytest

from config.schema import Settings
from models.callsets import GRAVE, CallSets, apart
from models.finding import Finding
from models.kinds.sequence import ProcessCalls
from probes.event import Event, Process
from probes.names import NUMBERS
from tests.models.scenarios import mix
from tests.models.test_promise import decide
from tests.models.test_short_learning import learned
from tests.models.world import Feed, World, told

PLAIN = "read write openat close fstat mmap mprotect munmap brk rt_sigaction ioctl futex epoll_wait accept4 recvfrom"
MORE = PLAIN + " sendto writev clone3 wait4 newfstatat getrandom"
OTHERS = "shmget semget msgget mlockall mincore splice tee vmsplice sync_file_range io_setup io_submit inotify_init"


def bits(calls: str) -> int:
    return sum(1 << NUMBERS[call] for call in calls.split())


def used(w: World, process: Process, calls: str, misses: int = 0, at_exit: bool = False) -> Event:
    """What the kernel tells of a process that made these calls."""
    detail = {"used": bits(calls).to_bytes(64, "little").hex(), "calls": 900, "misses": misses}
    kind, action = ("exec", "exit") if at_exit else ("sequence", "process")
    return w.event(kind, action, process, process.exe, detail=detail)


def lived(feed: Feed, world: World, begin: float, end: float, seed: int = 1) -> list[Finding]:
    """Services that tell their calls each minute, a few more at times; short programs that end."""
    rng = random.Random(seed)
    found = []
    for t in range(int(begin), int(end), 60):
        for process in (mix.NGINX, mix.POSTGRES, mix.REDIS, mix.WORKER):
            some = 15 if t == int(begin) else rng.randrange(10, 16)
            found += feed.give([used(world.at(t), process, " ".join(PLAIN.split()[:some]))])
        found += feed.give([used(world.at(t + 1), mix.CRON, MORE, at_exit=True)])
    return found


def known(seconds: int = 900) -> tuple[Feed, World]:
    feed, world = learned(seconds)
    lived(feed, world, seconds + 1, seconds + 600)
    return feed, world


# --- the model


def test_a_set_that_repeats_is_less_unusual_each_time_and_scoring_changes_nothing() -> None:
    model = CallSets()
    model.learn_one({"program": "/app", "used": bits(PLAIN)})
    x = {"program": "/app", "used": bits(PLAIN + " ptrace")}
    before = msgspec.msgpack.encode(model.dump())

    scores = [model.score_one(x), model.score_one(x)]
    assert before == msgspec.msgpack.encode(model.dump())
    model.learn_one(x)
    scores.append(model.score_one(x))

    assert scores[0] == scores[1] > 1 > scores[2] == 0


def test_a_graver_call_and_more_calls_score_higher() -> None:
    model = CallSets()
    for _ in range(5):
        model.learn_one({"program": "/app", "used": bits(PLAIN)})

    one, many, grave, gravest = (
        model.score_one({"program": "/app", "used": bits(f"{PLAIN} {more}")})
        for more in ("sendto", OTHERS, "unshare", "init_module")
    )

    assert 1 < one < many < gravest and one < grave < gravest


def test_the_state_is_bounded_and_what_is_in_use_stays() -> None:
    rng = random.Random(2)
    model, sizes = CallSets(), []
    for i in range(3000):
        model.learn_one({"program": "/usr/sbin/nginx", "used": bits(PLAIN)})
        model.learn_one({"program": f"/build/{i}", "used": rng.getrandbits(512)})
        if i % 500 == 499:
            sizes.append(len(msgspec.msgpack.encode(model.dump())))

    assert max(sizes) < 13_000
    assert 0.0 == model.score_one({"program": "/usr/sbin/nginx", "used": bits(PLAIN)})
    assert 0 < model.forgotten


def test_a_state_that_is_written_and_read_answers_the_same() -> None:
    rng, model, twin = random.Random(4), CallSets(), CallSets()
    for i in range(200):
        model.learn_one({"program": f"/p/{i % 9}", "used": rng.getrandbits(40)})
    twin.load(msgspec.msgpack.decode(msgspec.msgpack.encode(model.dump())))

    xs = [{"program": f"/p/{i % 12}", "used": rng.getrandbits(45) | 1} for i in range(50) if i % 12 < 9]
    assert [model.score_one(x) for x in xs] == [twin.score_one(x) for x in xs]
    assert model.dump() == twin.dump()
    assert 0 == apart(5, 5)


# --- in a baseline


@pytest.mark.parametrize("seconds", [60, 900])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_services_that_first_make_usual_calls_later_raise_nothing(seconds: int, seed: int) -> None:
    """After a minute nothing of them was told yet; then they reload, meet errors and stop."""
    feed, world = learned(seconds, seed)

    found = lived(feed, world, seconds + 1, seconds * 3 + 300, seed)
    for t, process in enumerate((mix.NGINX, mix.POSTGRES, mix.REDIS, mix.WORKER)):
        stop = "rt_sigreturn kill wait4 unlink fsync rename exit_group shutdown"
        found += feed.give([used(world.at(seconds * 3 + 400 + t), process, f"{PLAIN} {stop}", at_exit=True)])

    assert [] == told(found)


def test_a_grave_call_that_a_program_never_made_is_told_by_name() -> None:
    feed, world = known()

    (found,) = feed.give([used(world.at(1600), mix.WORKER, f"{PLAIN} ptrace setns", misses=40)])

    assert "python in shop/web used 2 system calls it never used: ptrace, setns" == found.what
    assert "the nearest known process, of " in found.why and "differs by 0." in found.why
    assert ("sequence", "sequences", "high", "forced") == (found.kind, found.detector, found.severity, found.mode)
    assert (900, 40) == (found.evidence["calls"], found.evidence["misses"])
    assert found.expected_per_week is not None and found.expected_per_week <= found.budget
    assert not found.would_alert


def test_many_calls_at_once_that_nobody_here_makes_are_told_and_a_few_are_not() -> None:
    feed, world = known()

    few = feed.give([used(world.at(1600), mix.NGINX, f"{PLAIN} sendto writev clone3", at_exit=True)])
    many = feed.give([used(world.at(1700), mix.POSTGRES, f"{PLAIN} {OTHERS}", at_exit=True)])

    assert [] == told(few)
    assert ["postgres in shop/web used 12 system calls it never used"] == [w.split(":")[0] for w in told(many)]
    assert "and 4 more" in many[0].what


def test_a_process_that_tells_the_same_each_minute_is_one_finding_and_stays_unknown() -> None:
    feed, world = known()

    found = [f for i in range(30) for f in feed.give([used(world.at(1600 + 60 * i), mix.REDIS, f"{PLAIN} bpf")])]
    (row,) = feed.baselines.describe(world.workload)["quarantine"]

    assert 1 == len(found)
    assert (found[0].value, 30) == (row["value"], row["count"])


def test_it_is_told_again_of_another_process() -> None:
    feed, world = known()
    other = msgspec.structs.replace(mix.REDIS, pid=77_777)

    found = [*feed.give([used(world.at(1600), mix.REDIS, f"{PLAIN} bpf")])]
    found += feed.give([used(world.at(1660), other, f"{PLAIN} bpf")])

    assert 2 == len(found)
    assert 1 == len({f.fingerprint for f in found})


def test_what_was_seen_while_learning_is_known() -> None:
    feed, world = Feed(max="10m"), World()
    for t in range(0, 590, 60):
        feed.give([world.at(t).ran_as(mix.REDIS), used(world.at(t), mix.REDIS, f"{PLAIN} bpf ptrace {OTHERS}")])

    assert [] == feed.give([used(world.at(700), mix.REDIS, f"{PLAIN} bpf ptrace {OTHERS}")])


def test_a_program_that_was_never_run_here_is_left_to_those_who_tell_of_it() -> None:
    feed, world = known()
    stranger = Process(9, 9, 1, "x", "/tmp/x", ("/tmp/x",))

    assert [] == feed.give([used(world.at(1600), stranger, f"{PLAIN} ptrace bpf", at_exit=True)])


def test_a_call_that_the_privilege_detector_told_is_not_told_twice() -> None:
    feed, world = known()

    first = feed.give([world.at(1600).called(mix.WORKER, "ptrace", "PTRACE_ATTACH", target_relation="stranger")])
    later = feed.give([used(world.at(1601), mix.WORKER, f"{PLAIN} ptrace")])

    assert (1, []) == (len(first), told(later))


def test_accepting_makes_it_known_and_forgetting_tells_it_again() -> None:
    feed, world = known()
    again = msgspec.structs.replace(mix.REDIS, pid=77_778)
    third = msgspec.structs.replace(mix.REDIS, pid=77_779)

    (found,) = feed.give([used(world.at(1600), mix.REDIS, f"{PLAIN} bpf")])
    decide(feed, "accept", world.workload, found.value)
    silent = feed.give([used(world.at(1700), again, f"{PLAIN} bpf")])
    decide(feed, "forget", world.workload, found.value)
    told_again = feed.give([used(world.at(1800), third, f"{PLAIN} bpf")])

    assert ([], [found.value]) == (silent, [f.value for f in told_again])


def test_the_kind_can_be_switched_off_and_has_a_budget() -> None:
    for kinds, expected in (
        ({"sequence": {"enabled": False}}, 0),
        ({"sequence": {"false_alerts_per_week": 0.001}}, 0),
        ({}, 1),
    ):
        feed = Feed(Settings.model_validate({"learn": {"max": "5m"}, "models": {"kinds": kinds}}))
        world = World()
        feed.give(mix.start(world, 0))
        lived(feed, world, 1, 600)
        found = feed.give([used(world.at(900), mix.REDIS, f"{PLAIN} bpf")])
        assert expected == len(found), kinds


def test_a_snapshot_keeps_it_and_an_old_one_is_read() -> None:
    feed, world = known()
    (found,) = feed.give([used(world.at(1600), mix.REDIS, f"{PLAIN} bpf")])
    other = Feed()
    other.offset = feed.offset
    other.baselines.restore(feed.baselines.snapshot(world.workload))
    old = feed.baselines._all[world.workload].state()
    del old["calls"]

    other.baselines._all[world.workload].load(old)  # no error
    other.baselines.restore(feed.baselines.snapshot(world.workload))
    again = other.give([used(world.at(1700), mix.REDIS, f"{PLAIN} bpf")])
    next_one = other.give([used(world.at(1800), msgspec.structs.replace(mix.REDIS, pid=5), f"{PLAIN} bpf")])

    assert ([], [found.what]) == (told(again), told(next_one))


def test_what_a_server_forks_and_the_server_itself_are_known_apart() -> None:
    """A short snapshot process comes all the time; the server that forks it tells its calls late, or at its end."""
    feed, world = learned(60)
    child = msgspec.structs.replace(mix.REDIS, pid=5_000, ppid=mix.REDIS.pid, parent=mix.REDIS)
    for i in range(12):
        feed.give([used(world.at(70 + i), child, "write close fsync rename exit_group", at_exit=True)])

    assert [] == told(feed.give([used(world.at(300), mix.REDIS, f"{PLAIN} {OTHERS}", at_exit=True)]))
    (found,) = feed.give([used(world.at(301), child, "write close ptrace", at_exit=True)])
    assert "redis-server in shop/web used a system call it never used: ptrace" == found.what


def test_a_program_that_was_looked_at_a_few_times_may_make_more_calls() -> None:
    feed, world = learned(60)
    for i in range(3):
        feed.give([used(world.at(120 + 60 * i), mix.NGINX, PLAIN)])

    assert [] == told(feed.give([used(world.at(400), mix.NGINX, f"{PLAIN} {OTHERS}")]))


@pytest.mark.parametrize("raw", ["", "zz" * 64, "00", 7, None, "ff" * 64])
def test_no_set_that_a_kernel_might_send_stops_it(raw: object) -> None:
    feed, world = known()
    event = world.at(1600).event("sequence", "process", mix.REDIS, mix.REDIS.exe, detail={"used": raw})

    feed.give([event])

    assert 0 == feed.baselines.faults


@pytest.mark.parametrize("budget", [1.0, 0.1])
def test_over_weeks_a_service_that_grows_stays_within_its_budget_and_the_attack_is_told(budget: float) -> None:
    """Two weeks of learning, four of enforcing: jobs with a call more now and then, a deploy with several."""
    day = 86_400
    alerts, attacks = 0, 0
    for seed in range(4):
        rng = random.Random(seed)
        feed = Feed(Settings.model_validate({"models": {"false_alerts_per_week": budget}}))
        world = World()
        feed.give(mix.start(world, 0))
        pool = [c for c in NUMBERS if c not in MORE.split()][:120]
        calm = [c for c in pool if c not in ("ptrace", "syslog")]
        calls = {p: PLAIN.split() for p in (mix.NGINX, mix.REDIS, mix.WORKER)}
        found = []
        for hour in range(0, 42 * 24, 5):
            for process, own in calls.items():
                if rng.random() < 0.02:
                    own += rng.sample(calm, rng.choice((1, 1, 2, 3)))
                told_now = feed.give([used(world.at(hour * 3600 + 10), process, " ".join(own))])
                found += told_now if hour >= 14 * 24 else []
        alerts += len({f.event.time // (600 * 10**9) for f in found if not f.would_alert})
        made = used(world.at(42 * day), mix.REDIS, " ".join([*calls[mix.REDIS], "process_vm_readv", "userfaultfd"]))
        attacks += len(feed.give([made]))

    assert alerts <= max(1, budget * 4 * 4)
    assert 4 == attacks


# --- on evidence


def fortnight(brings: int) -> tuple[Feed, World]:
    """Two weeks in which `brings` times the worker makes plain calls that nobody here made."""
    world, feed, rng = World(), Feed(Settings.model_validate({"learn": {"min": "1d"}})), random.Random(1)
    odd = [name for name in NUMBERS if name not in GRAVE and name not in f"{MORE} {OTHERS}".split()]
    for t in range(0, 14 * 86_400, 1800):
        for process in (mix.NGINX, mix.POSTGRES, mix.REDIS, mix.WORKER):
            calls = " ".join(PLAIN.split()[: rng.randrange(10, 16)])
            feed.give([world.at(t).read(process, "/data/x"), used(world.at(t + 1), process, calls)])
        if brings and t > 86_400 and t % 86_400 == 3600:
            brings -= 1
            new = " ".join(odd.pop() for _ in range(12))
            feed.give([used(world.at(t + 2), mix.WORKER, f"{PLAIN} {new}")])
    assert "enforcing" == feed.baselines.summary(world.workload)["mode"]
    return feed, world


def test_how_often_such_was_learned_is_how_often_it_is_expected() -> None:
    """Four departures in a fortnight: the next is expected 2.5 times a week, whatever the categories say."""
    found = {}
    for brings in (0, 4):
        feed, world = fortnight(brings)
        scores = feed.baselines._all[world.workload].calls.usual.scores
        assert brings == sum(score > 15 for score, _ in scores)
        found[brings] = feed.give([used(world.at(14 * 86_400), mix.WORKER, f"{PLAIN} {OTHERS}")])

    assert [] == found[4]
    assert 1 == len(found[0]) and 0 < found[0][0].expected_per_week <= 1


def test_what_is_told_counts_from_the_next_day_as_one_of_those_that_come_until_it_is_confirmed() -> None:
    feed, world = fortnight(0)
    calls = feed.baselines._all[world.workload].calls

    def departures() -> int:
        return sum(score > 1 for score, _ in calls.usual.scores)

    usual = [departures()]
    (finding,) = feed.give([used(world.at(14 * 86_400), mix.WORKER, f"{PLAIN} ptrace")])
    usual.append(departures())
    calls.settle(15)
    usual.append(departures())
    decide(feed, "confirm", world.workload, finding.value)
    usual.append(departures())
    decide(feed, "undo", world.workload, "d-confirm")
    usual.append(departures())

    assert "enforcing" == finding.mode and finding.expected_per_week <= 1
    assert [0, 0, 1, 0, 1] == [n - usual[0] for n in usual]


def test_a_snapshot_knows_what_is_usual() -> None:
    feed, world = fortnight(1)
    calls, copy = feed.baselines._all[world.workload].calls, ProcessCalls()

    copy.load(msgspec.msgpack.decode(msgspec.msgpack.encode(calls.dump())))

    assert calls.usual.scores == copy.usual.scores != []
