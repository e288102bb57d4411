"""What a workload does all day is counted in the kernel and crosses no more; what it never did is told all the same."""

from collections.abc import Callable, Iterator

import pytest

from pipeline.demo.service import Service
from tests.e2e.conftest import Shop, Start, cli, objects, until

LEARN_S = 12


@pytest.fixture(scope="module")
def service(start: Start) -> Service:
    return start({"learn.max": f"{LEARN_S}s"})


@pytest.fixture(scope="module")
def shop(service: Service, open_shop: Callable[[], Shop]) -> Iterator[Shop]:
    shop = open_shop()
    shop.traffic(True)
    for _ in range(3):
        reads(shop, "/etc/hosts", 2)
        reads(shop, "/etc/passwd", 2)
    shop.until(service, lambda row: row["mode"] != "learning" and row["in_kernel"] > 5, LEARN_S + 30)
    yield shop
    shop.traffic(False)


def records(service: Service) -> int:
    """Everything that crossed since the start; reported every few seconds."""
    return int(service.ask("status")["probe"]["counters"].get("records", 0))


def reads(shop: Shop, path: str, times: int) -> None:
    shop.evaluate(f"[open({path!r}).close() for _ in range({times})]")


def test_what_is_usual_is_counted_and_does_not_cross(service: Service, shop: Shop) -> None:
    """20,000 opens of a known file arrive in the counts, and not as records."""
    for _ in range(6):
        reads(shop, "/etc/hosts", 1)
        shop.until(service, lambda row: row["in_kernel"] > 0)
    begun, before = records(service), shop.until(service, lambda row: True)["events"]

    reads(shop, "/etc/hosts", 10_000)
    reads(shop, "/etc/hosts", 10_000)

    shop.until(service, lambda row: row["events"] >= before + 20_000)
    crossed = until(lambda: records(service) - begun, lambda n: n > 0)
    assert crossed < 10_000, "of them and of everything else that happened meanwhile"


def test_a_secret_read_for_the_first_time_is_told_by_a_workload_whose_reads_are_counted(
    service: Service, shop: Shop
) -> None:
    reads(shop, "/etc/shadow", 1)

    def alerts() -> list[str]:
        return [a["what"] for a in objects(cli("alerts", "--json", data=service.data)) if "/etc/shadow" in a["what"]]

    until(alerts, bool, 20)


def test_forgetting_takes_it_out_of_the_kernel(service: Service, shop: Shop) -> None:
    """The next time it is judged, and told."""

    def told() -> list[str]:
        return [a["what"] for a in objects(cli("alerts", "--json", data=service.data)) if "/etc/passwd" in a["what"]]

    name = (shop.row(service) or {})["workload"]
    shown = objects(cli("baseline", "show", name, "--json", data=service.data))
    values = [row["value"] for page in shown for row in page["known"]["file"]]
    reads(shop, "/etc/passwd", 100)
    assert [] == told()

    cli("baseline", "forget", name, next(v for v in values if v.endswith(" read /etc/passwd")), data=service.data)

    until(lambda: reads(shop, "/etc/passwd", 1) or told(), bool, 20)
