"""The demo's course: Wonted starts, the shop opens, a minute of learning, normal work, the attack, what was told."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.client import ClientError
from pipeline.demo.attack import Step, steps
from pipeline.demo.engines import CannotRun, Engine, choose
from pipeline.demo.network import die_with_parent
from pipeline.demo.service import Line, Lines, Service, Silent

NORMAL_S = 10
"""How long the shop works normally after learning, before the attack."""
FINDING_S, SLACK_S = 15, 45
"""How long a step may take to be noticed, and all of them to reach Slack (one message a second, burst of three)."""
AGAIN_S = 0.25
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Town:
    """The process town.py, spoken to."""

    def __init__(self, namespace: str | None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.demo.town", *([namespace] if namespace else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self.namespace: str = self._answer()["netns"]

    def say(self, **message: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise CannotRun("the demo's network side ended; its reason is above") from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise CannotRun("the demo's network could not be made; its reason is above (it needs root and veth)")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class FakeSlack:
    """The stand-in for Slack that ships with Wonted, as a process; its requests come as JSON lines."""

    def __init__(self, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.sinks.fake_slack", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        assert self.process.stdout is not None
        self.lines = Lines(self.process.stdout, "stdout of the Slack stand-in")
        self.base_url: str = self.lines.wait(lambda line: "base_url" in line.object, 30, "address").object["base_url"]

    @property
    def messages(self) -> list[Line]:
        return [line for line in self.lines.all if line.object.get("text")]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Clock:
    def __init__(self) -> None:
        self.start = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.start:6.1f} s  {text}", flush=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the demo by one KeyboardInterrupt, so that it cleans up.

    Python drops an exception that comes up in a destructor or in a hook of fork(): it is raised until it is heard.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (*ENDING, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def play(engine: str = "auto", learn_s: float = 60.0, keep: bool = False) -> int:
    if os.geteuid() != 0:
        print("wonted demo needs root, for eBPF and for the container; sudo wonted demo", file=sys.stderr)
        return 4
    clock = Clock()
    stack = ExitStack()
    code = 1
    try:
        with interruptible():
            code = course(stack, clock, engine, learn_s, keep)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except (CannotRun, Silent, ClientError) as error:
        print(f"wonted demo: {error}", file=sys.stderr)
    finally:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
        stack.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    clock.say("everything that the demo made is gone again" if not keep else "done")
    return code


def course(stack: ExitStack, clock: Clock, engine: str, learn_s: float, keep: bool) -> int:
    base = Path(tempfile.mkdtemp(prefix="wonted-demo-"))
    if keep:
        print(f"          data: {base}")
    else:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
    bundle = base / "bundle"
    bundle.mkdir()

    chosen = choose(engine, bundle, secrets.token_hex(3))
    slack = FakeSlack()
    stack.callback(slack.close)
    service = Service(
        base / "data",
        {
            # Only the shop: the rest of a machine in use is not known after a minute, and would crowd the channel.
            "workloads": json.dumps({f"*{chosen.known_as}*": {"learn": {"max": f"{learn_s:g}s"}}}),
            "sinks.slack.token": "xoxb-demo",
            "sinks.slack.channel": "C0DEMO",
            "sinks.slack.base_url": slack.base_url,
        },
    ).start()
    stack.callback(service.stop)
    clock.say(service.ready().text)

    shop, town = open_shop(stack, chosen, clock)
    workload = appears(service, shop, clock)
    learns(service, workload, clock, learn_s)
    until = time.monotonic() + NORMAL_S
    clock.say(f"{NORMAL_S} s of normal work under enforcement")
    while time.monotonic() < until:
        time.sleep(0.2)
    before = alerts(service, workload)
    count = town.say(count=True)
    clock.say(f"{count['served']} requests served, {count['failed']} failed; alerts on normal traffic: {len(before)}")
    for line in before:
        print(f"            {line.object['what']}: {line.object['why']}")

    missed = attack(service, town, workload, clock)
    missed += on_slack(slack, workload, missed, clock)
    town.say(traffic=False)
    show(slack, workload)
    lost = losses(service, workload)
    clock.say(f"events lost: {lost}")
    if missed or before:
        for name in dict.fromkeys(missed):
            print(f"MISSED: {name}")
        if before:
            print(f"FALSE ALERTS on normal traffic: {len(before)}")
        return 1
    print("every step was told, and normal traffic raised nothing")
    return 0


def open_shop(stack: ExitStack, engine: Engine, clock: Clock) -> tuple[Engine, Town]:
    """Start the shop in its container, and the town around it; customers come at once."""
    stack.callback(engine.stop)
    if engine.needs_running_shop:
        town = Town(f"/proc/{engine.start(None)}/ns/net")
    else:
        town = Town(None)
        engine.start(town.namespace)
    stack.callback(town.close)
    deadline = time.monotonic() + 20
    while (answer := town.say(get="/"))["status"] != 200:
        if time.monotonic() > deadline:
            raise CannotRun(f"the shop does not answer: {answer['body']}")
        time.sleep(0.1)
    town.say(traffic=True)
    clock.say(f"a small web shop serves customers in its own container ({engine.name})")
    return engine, town


def appears(service: Service, shop: Engine, clock: Clock) -> str:
    """Wait until the shop is listed; its workload's name."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for row in service.ask("workloads"):
            if shop.known_as in row["workload"]:
                clock.say(f"workload {row['workload']} appeared; {row['mode']}")
                return str(row["workload"])
        time.sleep(0.25)
    names = ", ".join(str(row["workload"]) for row in service.ask("workloads"))
    raise Silent(f"the shop is not among the workloads ({names})")


def learns(service: Service, workload: str, clock: Clock, learn_s: float) -> None:
    """Show the learning's progress until it ends."""
    deadline = time.monotonic() + learn_s + 30
    shown = time.monotonic()
    while time.monotonic() < deadline:
        row = next(row for row in service.ask("workloads") if row["workload"] == workload)
        if row["mode"] != "learning":
            clock.say(f"{workload} is {row['mode']} now: {row['events']} events learned")
            return
        if time.monotonic() >= shown:
            shown += max(5.0, learn_s / 6)
            eta = f", {row['eta_s']:.0f} s to go" if row["eta_s"] is not None else ""
            clock.say(f"{workload} learning {100 * (row['progress'] or 0):.0f} %{eta} ({row['events']} events)")
        time.sleep(0.25)
    raise Silent(f"{workload} was still learning {learn_s + 30:g} s after it appeared")


def alerts(service: Service, workload: str) -> list[Line]:
    """What was told of this workload so far."""
    return [line for line in service.out.all if told(line.object, workload)]


def told(alert: dict[str, Any], workload: str) -> bool:
    return alert.get("workload") == workload and not alert.get("finding") and not alert.get("would_alert")


def attack(service: Service, town: Town, workload: str, clock: Clock) -> list[str]:
    """Each step in turn, waiting for its alert; the names of those that were not told."""
    clock.say("the attack begins, through the shop's own /price page")
    missed = []
    for number, step in enumerate(steps(), 1):
        since = len(service.out.all)
        answer = town.say(get=step.path)
        try:
            line = service.out.wait(
                lambda line, step=step: told(line.object, workload) and step.raised(line.object),  # type: ignore[misc]
                FINDING_S,
                f"alert on {step.name}",
                since,
            )
        except Silent:
            missed.append(step.name)
            clock.say(f"{number}. {step.name}: NOT TOLD in {FINDING_S} s (the shop answered {answer['body'][:200]})")
            continue
        ms = (line.at - answer["asked"]) / 1e6
        raised = line.object
        clock.say(f"{number}. {step.name}: told after {ms:.0f} ms as {raised['severity']} {raised['kind']}")
        print(f"            {raised['what']}\n            {raised['why']}")
    return missed


def on_slack(slack: FakeSlack, workload: str, missed: list[str], clock: Clock) -> list[str]:
    """Wait until each step can be read on Slack; the names of those that cannot."""
    deadline = time.monotonic() + SLACK_S
    late = []
    for step in steps():
        if step.name in missed:
            continue
        try:
            slack.lines.wait(partial(reads, workload, step), deadline - time.monotonic(), step.name)
        except Silent:
            late.append(f"{step.name} (on Slack)")
    requests = len(slack.messages)
    clock.say(f"Slack's stand-in received {requests} messages" + (f"; missing: {', '.join(late)}" if late else ""))
    return late


def reads(workload: str, step: Step, line: Line) -> bool:
    text = line.object.get("text", "")
    return workload in text and step.shown in text


def show(slack: FakeSlack, workload: str) -> None:
    """The messages about the shop; a machine in use has others."""
    ours = [line.object for line in slack.messages if workload in line.object["text"]]
    print("\n---- Slack, exactly as received " + "-" * 48)
    for message in ours:
        thread = f", in the thread of {message['thread_ts']}" if message.get("thread_ts") else ""
        print(f"[{message.get('method')} {message.get('ts')}{thread}]")
        print(message["text"])
        print("-" * 80)
    if others := len(slack.messages) - len(ours):
        print(f"({others} more about other workloads of this machine)")


def losses(service: Service, workload: str) -> str:
    row = next((row for row in service.ask("workloads") if row["workload"] == workload), None)
    return "unknown" if row is None else f"{row['lost']} of {row['events']} of {workload}"
