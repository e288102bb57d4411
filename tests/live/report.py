"""What came out, as Markdown."""

from typing import Any

from tests.live.exam import Result


def cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def told(row: dict[str, Any]) -> str:
    where = "" if not row.get("finding") else " (finding)"
    return f"{row['severity']}: {row['what']}{where}"


def alerts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was told: neither findings that joined an alert nor that it went on."""
    return [row for row in rows if not row.get("finding") and not row.get("update")]


def markdown(result: Result, status: dict[str, Any]) -> str:
    false = alerts(result.false)
    named = len(result.seen) - len(result.missed)
    unlisted = [one for one in result.seen if not one.act.listed]
    seconds = result.seconds
    out = [
        f"- Learned {seconds['learning']:.0f} s, enforced {seconds['enforcing']:.0f} s before the acts, "
        f"{len(result.seen)} acts in {seconds['acting']:.0f} s; mode {result.row.get('mode')}.",
        f"- Requests served {result.served:,}, failed {result.failed:,}; events {result.row.get('events', 0):,}, "
        f"known behaviours {result.row.get('known')}, lost {result.lost}.",
        f"- False alerts while enforcing: **{len(false)}**.",
        f"- Acts told with their name: **{named} of {len(result.seen)}**; of the {len(unlisted)} that the danger list "
        f"does not name, {sum(one.named is not None for one in unlisted)}.",
    ]
    for name, (cpu, memory) in result.cost.items():
        out.append(f"- Wonted while {name}: {cpu:.1f} % of a core, at most {memory:.0f} MiB (PSS).")
    lost = status.get("lost") or "none"
    out.append(f"- Lost on the whole machine, by stage: {lost}. Alerts of other workloads on it: {result.others}.")
    for row in false:
        out.append(f"  - FALSE {row['time']} {cell(row['what'])}: {cell(row['why'])} `{cell(row['command'])}`")
    out.append(f"- While learning it said what it would tell: {len(alerts(result.would))}.")
    for row in alerts(result.would):
        out.append(f"  - {cell(row['what'])} (would_alert {row['would_alert']}) `{cell(row['command'])}`")
    out += ["", "| act | by | told | with |", "|---|---|---|---|"]
    for one in result.seen:
        hit = one.named
        star = "" if not one.act.listed else " *"
        also = len(alerts(one.told))
        said = cell(told(hit)) if hit else "; ".join(cell(told(row)) for row in one.told[:3]) or "nothing"
        out.append(f"| {cell(one.act.name)}{star} | {one.act.by} | {'yes' if hit else '**no**'} ({also}) | {said} |")
    out.append("\n`*`: named by the danger list. In brackets: alerts within the act's time.")
    return "\n".join(out) + "\n"
