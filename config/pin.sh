#!/usr/bin/env bash
# make pin: writes requirements*.txt from requirements*.in: every package with version and hashes, no host names.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(.venv/bin/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links
  --no-emit-trusted-host --no-header --resolver=backtracking)
[ -x .venv/bin/pip-compile ] || .venv/bin/pip install --quiet pip-tools
"${compile[@]}" --output-file requirements.txt requirements.in
"${compile[@]}" --allow-unsafe --output-file requirements-test.txt requirements-test.in
