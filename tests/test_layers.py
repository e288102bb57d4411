"""Imports point one way, and each outside world has one door."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("config", "probes", "models", "pipeline")
DOORS = {
    "bcc": ("probes/loader.py",),
    "river": ("models/",),
    "faust": ("pipeline/app.py", "pipeline/transport/"),
    "mode": ("pipeline/app.py", "pipeline/transport/"),
    "aiokafka": ("pipeline/transport/",),
    "slack_sdk": ("pipeline/sinks/slack.py",),
    "typer": ("pipeline/cli/",),
    "rich": ("pipeline/cli/", "pipeline/sinks/terminal.py"),
}
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
DISTRIBUTIONS = {"slack_sdk": "slack-sdk", "faust": "faust-streaming", "mode": "faust-streaming", "yaml": "pyyaml"}
"""Where a package's name is not its module's."""


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports when it runs; what only type checkers read does not count."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            yield str(node.module)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_from_pipeline_to_config_only(path: Path) -> None:
    """config < probes < models < pipeline; nothing imports tests; one door to each outside world."""
    name = str(path.relative_to(ROOT))
    above = LAYERS[LAYERS.index(name.split("/")[0]) + 1 :]
    for module in imports(path):
        top = module.split(".")[0]
        assert top not in above, f"{name} imports {module} from a layer above"
        assert top != "tests", f"{name} imports tests"
        doors = DOORS.get(top)
        assert doors is None or name.startswith(doors), f"{name} imports {module}; only {' and '.join(doors)} may"


def test_the_probe_process_is_small() -> None:
    """probes/ runs with all privileges: the standard library, msgspec and numpy, and bcc in the loader."""
    found = {module.split(".")[0] for path in (ROOT / "probes").rglob("*.py") for module in imports(path)}

    assert found - set(sys.stdlib_module_names) <= {"probes", "config", "msgspec", "numpy", "bcc"}


def test_everything_that_is_imported_is_in_the_requirements() -> None:
    lines = (ROOT / "requirements.in").read_text().splitlines()
    named = {re.split(r"[^\w-]", line)[0].lower() for line in lines if line and not line.startswith("#")}
    found = {module.split(".")[0] for path in FILES for module in imports(path)}
    outside = found - set(sys.stdlib_module_names) - {*LAYERS, "bcc"}

    missing = {name for name in outside if DISTRIBUTIONS.get(name, name.replace("_", "-").lower()) not in named}

    assert missing - {"pydantic_core"} == set()


def test_the_pinned_list_holds_every_requirement_with_a_hash_and_no_host() -> None:
    for name in ("requirements", "requirements-test"):
        text = (ROOT / f"{name}.txt").read_text()
        wanted = re.findall(r"^([\w-]+)", (ROOT / f"{name}.in").read_text(), re.MULTILINE)
        pinned = re.findall(r"^([\w-]+)==", text, re.MULTILINE)
        assert {package.lower() for package in wanted if package != "-c"} <= set(pinned)
        assert len(pinned) <= text.count("--hash=sha256:")
        assert re.search(r"https?://|--index-url|--find-links|--extra-index|--trusted-host", text) is None
