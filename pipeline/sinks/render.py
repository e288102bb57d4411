"""The layout of an alert, pure: Alert -> Slack blocks, Slack text, terminal lines.

What an attacker can write goes only into `plain_text` with emoji off and into `rich_text_preformatted`, visible and
without its secrets; there is no mrkdwn anywhere. Container, container IP, remote and command are never left out.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from models.clock import rfc3339
from pipeline.alert import Alert, Other, Step
from pipeline.sinks.text import cut, redact, redact_command, redact_text, shorten, visible

TITLE, WHY, FIELD, COMMAND, LINE, TREE = 150, 900, 250, 700, 150, 8
"""Characters; lines of the process tree. Slack's own limits are 150, 3000 and 2000, and about 13,000 in all."""
TOTAL = 10_000
EXAMPLES = 3
"""Of what a release added."""
JOINED = 9_000
"""Characters of commands in one message of a thread."""
NONE = "none"
Block = dict[str, Any]


def blocks(alert: Alert, again: bool = False) -> list[Block]:
    """The message of one alert, in fixed order."""
    return [
        {"type": "header", "text": plain(title(alert), TITLE)},
        {"type": "section", "text": plain(safe(alert.why) or NONE, WHY)},
        {"type": "section", "fields": [plain(f"{name}\n{shorten(value, FIELD)}") for name, value in fields(alert)]},
        *_release(alert),
        preformatted("Command", cut(command(alert), COMMAND)),
        preformatted("Process tree", "\n".join(tree(alert))),
        # The row of buttons belongs here once something answers them: a dead button is worse than none.
        {"type": "context", "elements": [plain(footer(alert, again), 500)]},
    ]


def short(alert: Alert, again: bool = False) -> list[Block]:
    """The same facts in fewer lines, for an alert that joins an incident where there are no threads."""
    facts = [name_value for name_value in fields(alert) if name_value[0] in ("Container", "Container IP", "Remote")]
    return [
        {"type": "section", "text": plain(title(alert), WHY)},
        {"type": "section", "fields": [plain(f"{name}\n{shorten(value, FIELD)}") for name, value in facts]},
        preformatted("Command", cut(command(alert), COMMAND)),
        {"type": "context", "elements": [plain(f"{safe(alert.incident or '')} - {footer(alert, again)}", 500)]},
    ]


def fallback(alert: Alert, again: bool = False) -> str:
    """For a phone's lock screen, and for when Slack refuses the blocks: text without markup."""
    lines = [title(alert), safe(alert.why), f"Command: {cut(command(alert), COMMAND)}"]
    lines += [f"{name}: {shorten(value, FIELD)}" for name, value in fields(alert)]
    lines += [f"Release: {cut(text, COMMAND)}"] if (text := release(alert)) is not None else []
    return escape("\n".join([*lines, footer(alert, again)]))


def headline(alert: Alert) -> str:
    """The first line of the fallback, for messages that carry blocks."""
    return escape(f"{title(alert)}\n{cut(command(alert), COMMAND)}")


def reply(alert: Alert, others: Sequence[Other], again: bool = False) -> tuple[list[Block], str, int]:
    """A message of the thread: the commands that joined an alert; how many of them fit."""
    lines: list[str] = []
    fit = 0
    for other in others:
        line = f"{rfc3339(other.time)[11:19]}  {cut(argv_command(other.argv, other.command), COMMAND)}"
        if other.object and other.object not in other.command:
            line += f"  ->  {cut(safe(other.object), LINE)}"
        if lines and sum(map(len, lines)) + len(line) + len(lines) > JOINED:
            break
        lines.append(line)
        fit += 1
    head = f"Also, {title(alert)}"
    text = preformatted("Commands", "\n".join(lines) or NONE)
    foot = plain(footer(alert, again), 500)
    made: list[Block] = [{"type": "section", "text": plain(head, WHY)}, text, {"type": "context", "elements": [foot]}]
    return made, escape(f"{head}\n{shorten(' | '.join(lines), COMMAND)}"), fit


def whole(alert: Alert) -> list[list[Block]]:
    """Messages of the thread with the command that the alert itself had to cut; none where it was not."""
    text = command(alert)
    if len(text) <= COMMAND:
        return []
    return [
        [preformatted("Whole command" if i == 0 else "Whole command, continued", text[i : i + JOINED])]
        for i in range(0, min(len(text), 4 * JOINED), JOINED)
    ]


def digest_fit(alerts: Sequence[Alert]) -> int:
    """How many of these one digest holds."""
    size = 0
    for index, alert in enumerate(alerts):
        size += len(_digest_lines(alert))
        if size > JOINED - 600:
            return max(1, index)
    return len(alerts)


def digest(alerts: Sequence[Alert], again: bool = False) -> tuple[list[Block], str]:
    """Many alerts in one message, critical first; each with where, what and the exact command."""
    places = sorted({alert.workload for alert in alerts})
    where = safe(places[0]) if len(places) == 1 else f"{len(places)} workloads"
    worst = max(alerts, key=lambda alert: alert.rank).severity
    head = f"({worst}) {len(alerts)} alerts in {where}"
    body = "\n".join(_digest_lines(alert) for alert in alerts)
    foot = "digest - each alert is in: wonted alerts" + _again(again)
    made: list[Block] = [
        {"type": "header", "text": plain(head, TITLE)},
        preformatted("Critical first", cut(body, JOINED)),
        {"type": "context", "elements": [plain(foot, 500)]},
    ]
    return made, escape(f"{head}\n{shorten(title(alerts[0]), 300)}")


def _digest_lines(alert: Alert) -> str:
    facts = dict(fields(alert))
    where = f"{facts['Container']} | IP {facts['Container IP']} | remote {facts['Remote']}"
    return (
        f"{rfc3339(alert.time)[11:19]} {cut(title(alert), 2 * LINE)} (seen {alert.seen} x, {alert.id})\n"
        f"  {cut(where, 2 * LINE)}\n  $ {cut(command(alert), COMMAND)}"
    )


def title(alert: Alert) -> str:
    """Severity, what and where."""
    what = safe(alert.what)
    where = "" if alert.workload.split(":")[0] in alert.what else f" in {safe(alert.workload)}"
    return f"({alert.severity}) {what}{where}"


def fields(alert: Alert) -> list[tuple[str, str]]:
    """Names and values, in the fixed order. A value is never empty."""
    container, k8s = alert.container, alert.k8s
    pod = [k8s["pod"] if k8s else None, (k8s["node"] if k8s else None) or alert.host]
    return [
        ("Container", _container(container)),
        ("Pod / node", " - ".join(safe(part) if part else NONE for part in pod)),
        ("Container IP", ", ".join(safe(ip) for ip in container["ip"]) or NONE if container else NONE),
        ("Remote", remote(alert)),
        ("Image", safe((container or {}).get("image") or NONE)),
        ("User", f"uid {alert.uid}" + (f" ({safe(alert.user)})" if alert.user else "")),
        ("Expected", expected(alert)),
        ("ATT&CK", ", ".join(safe(name) for name in alert.attack) or NONE),
    ]


def _release(alert: Alert) -> list[Block]:
    text = release(alert)
    return [] if text is None else [preformatted("Release", cut(text, COMMAND))]


def _container(container: dict[str, Any] | None) -> str:
    if container is None:
        return f"{NONE} (host)"
    return f"{safe(container['name'] or 'name unknown')} - {safe(container['id'] or 'id unknown')[:12]}"


def release(alert: Alert, own: bool = False) -> str | None:
    """What the image brought that came within the hour before, in one line; None: none did. `own`: for this machine,
    where secrets stay.

    >>> import msgspec
    >>> from pipeline.sinks.sample import sample_alert
    >>> facts = {"name": "shop:2.14.2", "added": 3, "kinds": {"file": 2, "exec": 1}, "values": ["exec a -> b"]}
    >>> release(msgspec.structs.replace(sample_alert(0), evidence={"release": facts}))
    'shop:2.14.2 added 3 values: 2 file, 1 exec; e.g. exec a -> b; all: wonted baseline diff shop/checkout:app'
    """
    facts = alert.evidence.get("release")
    if not isinstance(facts, dict):
        return None
    shown = visible if own else safe
    added, kinds, values = facts.get("added"), facts.get("kinds") or {}, facts.get("values") or []
    each = ", ".join(f"{count} {shown(str(kind))}" for kind, count in kinds.items())
    some = "; ".join(cut(shown(str(value)), LINE) for value in values[:EXAMPLES])
    text = f"{cut(shown(str(facts.get('name'))), LINE)} added {added} value{'' if added == 1 else 's'}"
    parts = [f"{text}: {each}" if each else text, f"e.g. {some}" if some else ""]
    return "; ".join([*filter(None, parts), f"all: wonted baseline diff {shown(alert.workload)}"])


def remote(alert: Alert) -> str:
    to = alert.remote
    if to is None or to["ip"] is None:
        return f"{NONE} ({safe(to['name'])})" if to and to["name"] else NONE
    ip = f"[{safe(to['ip'])}]" if ":" in to["ip"] and to["port"] is not None else safe(to["ip"])
    return ip + (f":{to['port']}" if to["port"] is not None else "") + (f" ({safe(to['name'])})" if to["name"] else "")


def expected(alert: Alert) -> str:
    if alert.expected_per_week is None:
        return "never (danger list)" if alert.detector == "danger" else NONE
    budget = f" (budget {alert.budget:g})" if alert.budget is not None else ""
    return f"{alert.expected_per_week:.3g} per week{budget}"


def command(alert: Alert) -> str:
    """The exact command: visible, without its secrets, not yet cut to a length."""
    text = argv_command(alert.argv, alert.command) or NONE
    return f"{text} [the kernel's record ends here]" if alert.argv_cut else text


def argv_command(argv: Sequence[str], text: str) -> str:
    if not argv:
        return visible(redact_command(text)[0])
    words, count = redact(argv)
    return visible(shlex.join(words) if count or len(words) != len(argv) or len(text) > 4_000 else text)


def tree(alert: Alert) -> list[str]:
    """One process a line, the one that acted last and marked; the middle goes when there are too many."""
    steps = alert.tree
    lines = []
    for depth, step in enumerate(steps):
        lines.append(f"{'  ' * min(depth, 8)}{_entered(step)}{cut(safe_command(step.command), LINE)} ({step.pid})")
    if not lines:
        return [NONE]
    lines[-1] += "  <- this"
    if len(lines) > TREE:
        lines = [*lines[:2], f"    [... {len(lines) - TREE + 1} more ...]", *lines[-(TREE - 3) :]]
    return lines


def _entered(step: Step) -> str:
    return f"[{visible(step.entered)}] " if step.entered and step.entered != "runtime" else ""


def footer(alert: Alert, again: bool = False) -> str:
    lost = f"{alert.lost} events lost" if alert.lost else "nothing lost"
    time = rfc3339(alert.time)
    return f"{alert.id} - {time[:10]} {time[11:19]} UTC - {alert.mode} - seen {alert.seen} x - {lost}{_again(again)}"


def _again(again: bool) -> str:
    return " - possibly told twice" if again else ""


def safe(text: str) -> str:
    return visible(redact_text(text)[0])


def safe_command(text: str) -> str:
    return visible(redact_command(text)[0])


def plain(text: str, limit: int = 2_000) -> Block:
    return {"type": "plain_text", "text": shorten(text, limit), "emoji": False}


def preformatted(label: str, text: str) -> Block:
    return {
        "type": "rich_text",
        "elements": [
            {"type": "rich_text_section", "elements": [{"type": "text", "text": label, "style": {"bold": True}}]},
            {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]},
        ],
    }


def escape(text: str) -> str:
    """For Slack's top-level `text`, the one place that Slack always parses: no mention, no link, no markup left."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("`", "\u02cb")


def terminal(alert: Alert, color: bool = False) -> str:
    """A few lines for a person at a terminal. Local: secrets stay, but nothing unseen does."""
    paint = {"critical": "1;31", "high": "31", "medium": "33", "low": "36"}.get(alert.severity, "0") if color else None
    what = visible(alert.what)
    head = f"{rfc3339(alert.time)[11:19]} ({alert.severity}) {what}"
    if paint:
        head = f"\x1b[{paint}m{head}\x1b[0m"
    if alert.update:
        return f"{head}  seen {alert.seen} x  {alert.id}\n"
    raw = {
        "Container": _raw_container(alert),
        "Container IP": visible(", ".join(alert.container["ip"])) or NONE if alert.container else NONE,
        "Remote": remote(alert),
        "Command": cut(visible(alert.command), 4 * COMMAND) or NONE,
    }
    if alert.fold or alert.would_alert:
        would = f"would alert ({alert.mode}): " if alert.would_alert else ""
        where = f"{raw['Container']} | {raw['Container IP']} | {raw['Remote']}"
        return f"{head}\n  {would}{where} | {raw['Command']}  {alert.id}\n"
    facts = dict(fields(alert))
    steps = [f"{_entered(step)}{cut(visible(step.command), LINE)} ({step.pid})" for step in alert.tree[-TREE:]]
    rows = [
        f"  {visible(alert.why)}",
        f"  Container     {raw['Container']}   Image  {facts['Image']}",
        f"  Container IP  {raw['Container IP']}   Remote  {raw['Remote']}   User  {facts['User']}",
        *([f"  Release       {cut(text, COMMAND)}"] if (text := release(alert, own=True)) is not None else []),
        f"  Command       {raw['Command']}",
        f"  Process tree  {' > '.join(steps)}",
        f"  {footer(alert)}",
    ]
    return "\n".join([head, *rows]) + "\n"


def _raw_container(alert: Alert) -> str:
    return visible(_container(alert.container))
