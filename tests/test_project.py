"""The files around the package agree with each other."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from steerpaper.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
PINS = (ROOT / "requirements.txt").read_text().split()


def test_pins_are_exact_and_public():
    assert len(PINS) == len(set(PINS))
    for pin in PINS:
        assert re.fullmatch(r"[a-z0-9-]+==\d+(\.\d+)*", pin), pin


def test_environment_has_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    packages = {item for item in environment["dependencies"] if isinstance(item, str)}
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert packages == {"python=3.11", "pip"}
    assert pip == [*PINS, "--editable ."]


@pytest.mark.parametrize("pin", PINS)
def test_installed_is_what_is_pinned(pin):
    name, wanted = pin.split("==")
    assert version(name).split("+")[0] == wanted, "run `make test`, which installs requirements.txt"


def test_package_takes_its_requirements_from_the_pins():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["dependencies"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert project["project"]["requires-python"] == ">=3.11"


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == citation["version"]
    assert project["license"] == citation["license"] == "MIT"


def test_citation_names_the_paper():
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    assert "2604.08524" in paper["url"]
    assert [author["family-names"] for author in paper["authors"]] == ["Cheng", "Wiegreffe", "Manocha"]


def test_workflow_holds_every_notebook_but_the_training():
    listed = re.findall(r'^    "(\d\d_\w+)": dict\(', (ROOT / "Snakefile").read_text(), re.MULTILINE)
    notebooks = sorted(path.stem for path in (ROOT / "notebooks").glob("*.py"))
    assert listed == [name for name in notebooks if not name.startswith("00_")]


def test_default_presets_exist():
    default = re.search(r"^PRESETS \?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(default[1].split()) <= set(PRESETS)


def test_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())
    command = ["make", "-s", "help"]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {line.split()[1] for line in shown.splitlines() if line.startswith("make ")} == phony


def test_ci_runs_what_a_person_runs():
    assert ".ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()
