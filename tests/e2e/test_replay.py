"""What was recorded can be played again: the same alerts, byte for byte, and others at another budget."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Shop, Start, cli, objects, until

LEARN = ("-o", "learn.max=12s")
ACTS = (
    "open('/etc/hostname', 'w').close()",
    "open('/srv/shop/about.html').read() + open('/etc/group').read()",
    "__import__('os').listdir('/var/lib') and open('/var/lib/shop/uploads/index', 'w').close()",
    "__import__('subprocess').run(['/usr/bin/gzip', '-V'], capture_output=True).returncode",
    "__import__('subprocess').run(['/usr/bin/env'], capture_output=True).returncode",
    "__import__('subprocess').run(['/bin/cat', '/etc/passwd'], capture_output=True).returncode",
    "__import__('socket').create_connection(('10.213.77.5', 5432)).close()",
    "__import__('socket').create_connection(('10.213.77.13', 4444)).close()",
    "__import__('socket').create_connection(('10.213.77.9', 8000)).close()",
)


@pytest.fixture(scope="module")
def recording(start: Start, open_shop: Callable[[], Shop], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop that is learned, and then does things that it never did, of all degrees."""
    service = start({"learn.max": "12s"})
    shop = open_shop()
    shop.traffic(True)
    shop.until(service, lambda row: row["mode"] != "learning")
    events = shop.row(service)["events"]  # type: ignore[index]
    for act in ACTS:
        shop.evaluate(act)
    shop.until(service, lambda row: row["events"] > events + 50)
    shop.traffic(False)
    until(lambda: sum(service.ask("status")["lag"].values()), lambda lag: lag == 0)
    file = tmp_path_factory.mktemp("recording") / "shop.wonted"

    done = cli("record", str(file), "--since", "1h", data=service.data)

    assert 0 == done.returncode, done.stderr
    service.stop()
    return file


def replay(file: Path, budget: float) -> list[dict[str, object]]:
    done = cli(*LEARN, "replay", str(file), "--set", f"models.false_alerts_per_week={budget}", "--json")
    assert 0 == done.returncode, done.stderr
    return objects(done)


def test_budgets_of_a_tenth_and_of_ten_give_different_alerts(recording: Path) -> None:
    few, many = ({(a["workload"], a["what"]) for a in replay(recording, budget)} for budget in (0.1, 10))

    assert few < many, (sorted(map(str, few)), sorted(map(str, many)))


def test_the_same_recording_gives_the_same_alerts(recording: Path) -> None:
    once, again = (cli(*LEARN, "replay", str(recording), "--json") for _ in range(2))

    assert once.stdout and once.stdout == again.stdout
