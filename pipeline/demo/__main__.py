"""`python -m pipeline.demo`: the demo without the rest of the command line."""

import argparse
import sys

from pipeline.demo import main

parser = argparse.ArgumentParser(prog="wonted demo", description=main.__doc__)
parser.add_argument("--engine", default="auto", choices=("auto", "docker", "runc", "plain"))
parser.add_argument("--learn", type=float, default=60.0, metavar="SECONDS", help="how long the shop is learned")
parser.add_argument("--keep", action="store_true", help="keep the data directory")
chosen = parser.parse_args()
sys.exit(main(chosen.engine, chosen.learn, chosen.keep))
