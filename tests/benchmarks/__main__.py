"""`python -m tests.benchmarks`, as `make bench` does."""

import sys

from tests.benchmarks.run import main

sys.exit(main())
