"""`python -m tests.live`, as `make live` does: the live examination in a real container (docs/live.md)."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from config.schema import UNITS
from pipeline.demo.service import Service
from tests.live import report
from tests.live.acts import ACTS
from tests.live.container import Mix, docker
from tests.live.exam import Exam
from tests.live.image import missing


def seconds(text: str) -> float:
    for unit in sorted(UNITS, key=len, reverse=True):
        if text.endswith(unit) and text.removesuffix(unit).replace(".", "", 1).isdigit():
            return float(text.removesuffix(unit)) * UNITS[unit]
    raise argparse.ArgumentTypeError(f'{text}: expected a duration such as "90s" or "15m"')


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.live", description=__doc__)
    asked.add_argument("--learn", type=seconds, default=900.0, metavar="15m")
    asked.add_argument("--enforce", type=seconds, default=1800.0, metavar="30m", help="before the acts")
    asked.add_argument("--gap", type=seconds, default=8.0, metavar="8s", help="between two acts")
    asked.add_argument("--acts", default="", metavar="WORDS", help="only acts whose name holds one of these, by commas")
    asked.add_argument("--report", type=Path, metavar="FILE", help="Markdown; FILE.json gets everything that was told")
    asked.add_argument("--keep-going", action="store_true", help="exit 0 whatever came out")
    given = asked.parse_args()
    lacking = missing()
    if lacking:
        print(f"live: apt-get install {' '.join(lacking)}", file=sys.stderr)
        return 5
    wanted = [word for word in given.acts.split(",") if word]
    acts = [act for act in ACTS if not wanted or any(word in act.name for word in wanted)]
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s  {line}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        engine = stack.enter_context(docker())
        say("the image is made")
        data = Path(tempfile.mkdtemp(prefix="wonted-live-data-"))
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        service = Service(data, {"learn.max": f"{given.learn:g}s", "incidents.per_minute": 1000}).start()
        stack.callback(service.stop)
        service.ready()
        mix = Mix(engine)
        stack.callback(mix.close)
        say(f"the mix runs (pid {mix.pid})")
        result = Exam(service, mix, say).run(given.learn, given.enforce, acts, given.gap)
        status = service.ask("status")
        if not result.row or result.failed > result.served:
            say(mix.log()[-2000:])
    text = report.markdown(result, status)
    print(text)
    if given.report:
        given.report.write_text(text)
        given.report.with_suffix(".json").write_text(json.dumps(asdict(result), indent=1, default=str))
    told = len(result.seen) - len(result.missed)
    good = not report.alerts(result.false) and told >= 0.95 * len(result.seen)
    return 0 if good or given.keep_going else 1


if __name__ == "__main__":
    sys.exit(main())
