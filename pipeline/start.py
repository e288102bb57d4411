"""The service's own process: `wonted run` becomes this program, so that it carries no command line in memory."""

import json
import sys
from pathlib import Path

from config.load import ConfigError, load
from pipeline.settings import CHECKS


def main(argument: str) -> int:
    asked = json.loads(argument)
    try:
        loaded = load(Path(asked["config"]) if asked["config"] else None, asked["overrides"], checks=CHECKS)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 3
    from pipeline.run import run

    sources = dict.fromkeys([*map(str, loaded.files), *(place.source for place in loaded.places.values())])
    return run(loaded.settings, asked["data"], config_sources=sources, probe=asked["probe"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
