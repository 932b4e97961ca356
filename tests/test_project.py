"""The files around the package agree with each other."""

import os
import re
import subprocess
import sys
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


def test_workflow_writes_every_committed_result_of_the_organisms():
    """Nothing is left of what a notebook once wrote."""
    source = re.search(r"^NOTEBOOKS = (\{.*?^\})", (ROOT / "Snakefile").read_text(), re.MULTILINE | re.DOTALL)[1]
    notebooks = eval(source, {"dict": dict}).values()
    written = {f"{name}.csv" for about in notebooks for name in about["tables"]}
    training = (ROOT / "notebooks" / "00_model_organisms.py").read_text()  # no part of the workflow
    figures = [name for about in notebooks for name in about["figures"]]
    figures += re.findall(r'sp\.save_figure\(.+, "(\w+)"\)', training)
    written |= {f"{name}.{kind}" for name in figures for kind in ("svg", "png")}
    command = ["git", "ls-files", "data/results/organism-*", "figures/organism-*"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    committed = [ROOT / path for path in listed if (ROOT / path).exists()]  # what is deleted is still listed
    assert committed
    assert not sorted(str(path.relative_to(ROOT)) for path in committed if path.name not in written)


def test_default_presets_exist():
    default = re.search(r"^PRESETS \?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(default[1].split()) <= set(PRESETS)


def test_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())
    command = ["make", "-s", "help"]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {line.split()[1] for line in shown.splitlines() if line.startswith("make ")} == phony


def dry_run(*arguments):
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", *arguments]  # whatever has been made here
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name, options", [("local-gpu", []), ("slurm", ["--executor", "local"])])
def test_workflow_understands_its_profiles(name, options):
    """The Slurm plugin is not among the requirements: another executor stands in for it."""
    profile = ROOT / "profiles" / name
    settings = yaml.safe_load((profile / "config.yaml").read_text())
    assert settings.get("executor", "local") == ("slurm" if name == "slurm" else "local")
    shown = dry_run("--profile", str(profile), *options, "--config", "presets=tiny")
    assert shown.returncode == 0 and "notebook_06_scorecard" in shown.stdout + shown.stderr, shown.stderr


@pytest.mark.parametrize("given", ["", "no-such-model"])
def test_workflow_without_a_known_preset_lists_them(given):
    shown = dry_run("--cores", "1", "--config", f"presets={given}")
    said = shown.stdout + shown.stderr
    assert shown.returncode and all(name in said for name in PRESETS) and "Traceback" not in said


def test_workflow_runs_once_at_a_time_and_leaves_no_lock(tmp_path):
    """As the Makefile starts it; a kill must not stop the next run."""
    code = re.search(r"^define WORKFLOW\n(.*?)^endef", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "snakemake.py").write_text("import time\nprint('started', flush=True)\ntime.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    how = dict(cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(2):  # the second time after a kill
        first = subprocess.Popen([sys.executable, "-c", code], **how)
        assert first.stdout.readline() == "started\n"
        second = subprocess.run([sys.executable, "-c", code], **how)
        assert second.returncode == 1 and "already running in this folder" in second.stderr
        first.kill()
        first.communicate()


def test_ci_runs_what_a_person_runs():
    assert ".ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()
