"""The files around the package agree with each other."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from mutations import MUTATIONS
from steerpaper.outputs import outputs
from steerpaper.presets import PRESETS, Preset

ROOT = Path(__file__).resolve().parent.parent
PINS = (ROOT / "requirements.txt").read_text().split()
SITE_PINS = (ROOT / "requirements-site.txt").read_text().split()


def test_pins_are_exact_and_public():
    assert len(PINS + SITE_PINS) == len({pin.partition("==")[0] for pin in PINS + SITE_PINS})
    for pin in PINS + SITE_PINS:
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
    notebooks = sorted(path.stem for path in (ROOT / "notebooks").glob("*.py"))
    assert list(outputs()) == [name for name in notebooks if not name.startswith("00_")]


def test_workflow_writes_every_committed_result_of_the_organisms():
    """Nothing is left of what a notebook once wrote."""
    written = {f"{name}.csv" for about in outputs().values() for name in about["tables"]} | {"manifest.json"}
    figures = [name for about in outputs().values() for name in about["figures"]]
    written |= {f"{name}.{kind}" for name in figures for kind in ("svg", "png")}
    written |= {f"{name}.safetensors" for about in outputs().values() for name in about["tensors"]}
    command = ["git", "ls-files", "data/results/organism-*/*", "figures/organism-*/*"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    committed = [ROOT / path for path in listed if (ROOT / path).exists()]  # what is deleted is still listed
    assert committed
    assert not sorted(str(path.relative_to(ROOT)) for path in committed if path.name not in written)


def test_default_presets_exist():
    default = re.search(r"^export PRESETS \?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
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


def test_a_notebook_that_may_end_owes_its_executed_copy_alone():
    command = [sys.executable, "-m", "snakemake", "--summary", "--config", "presets=qwen2.5-coder-0.5b-instruct tiny"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name, about in ((name, about) for name, about in outputs().items() if "only" in about):
        written = {*about["tables"], *about["figures"], *about["tensors"]}
        assert any(path.endswith(f"tiny/{name}.ipynb") for path in listed)
        assert not [path for path in listed if Path(path).stem in written]
        assert {about["only"]} <= {field.name for field in fields(Preset)}


@pytest.mark.parametrize("name", ["local-gpu", "slurm"])
def test_workflow_understands_its_profiles(name, tmp_path):
    """The Slurm plugin is not among the requirements: another executor stands in for it, without the plugin's options."""
    settings = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
    own = {option: value for option, value in settings.items() if option.startswith("slurm-")}
    # By sacct, a job that was cancelled would be waited for without end.
    assert own == ({"slurm-status-command": "squeue", "slurm-requeue": True} if name == "slurm" else {})
    assert settings.pop("executor", "local") == ("slurm" if name == "slurm" else "local")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in settings.items() if k not in own}))
    shown = dry_run("--profile", str(tmp_path), "--config", "presets=tiny")
    assert shown.returncode == 0 and "notebook_06_scorecard" in shown.stdout + shown.stderr, shown.stderr


@pytest.mark.parametrize("given", ["", "no-such-model"])
def test_workflow_without_a_known_preset_lists_them(given):
    shown = dry_run("--cores", "1", "--config", f"presets={given}")
    said = shown.stdout + shown.stderr
    assert shown.returncode and all(name in said for name in PRESETS) and "Traceback" not in said


def test_workflow_runs_once_at_a_time_and_leaves_no_lock(tmp_path):
    """As the Makefile starts it; a kill must not stop the next run."""
    (tmp_path / "snakemake.py").write_text("import time\nprint('started', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, ROOT / "profiles" / "workflow.py", "start", "--presets", "tiny"]
    environment = {name: value for name, value in os.environ.items() if name != "STEERPAPER_BUILD"}
    how = dict(cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(2):  # the second time after a kill
        first = subprocess.Popen(command, **how, start_new_session=True)
        assert first.stdout.readline() == "started\n"
        second = subprocess.run(command, **how)
        assert second.returncode == 1 and "already running in this folder" in second.stderr
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


def test_a_workflow_that_is_stopped_stops(tmp_path):
    """SIGTERM to the one process that a scheduler knows goes on to Snakemake, and its status comes back."""
    (tmp_path / "snakemake.py").write_text(
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('started', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, ROOT / "profiles" / "workflow.py", "start", "--presets", "tiny"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    process.terminate()
    assert process.wait(timeout=20) == 7


@pytest.mark.parametrize("newer", [True, False])
@pytest.mark.parametrize("failing", ["none", "avx2", "default"])
def test_processors_are_those_older_than_this_one_with_a_build_folder_each(tmp_path, failing, newer):
    """By an environment whose python says what it was given: the output of both, or of the one that is older than an AVX2
    processor, and failure if one fails."""
    python = tmp_path / "an env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec echo {"processor-avx2" * newer}\n'
                      'echo "$ATEN_CPU_CAPABILITY $MKL_ENABLE_INSTRUCTIONS $ONEDNN_MAX_CPU_ISA '
                      f'$STEERPAPER_BUILD $*"\n[ "$ATEN_CPU_CAPABILITY" != {failing} ]\n')
    python.chmod(0o755)
    (tmp_path / "an env" / ".installed").touch()
    command = ["make", "processors", f"VENV={tmp_path}/an env"]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "STEERPAPER_BUILD")}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (run.returncode == 0) == (failing == "none" or failing == "avx2" and not newer)
    said = [re.match(r"(\w+: \w+ \w+ \w+) (\S+) -m pytest --nbval .* tests/reference$", line).groups()
            for line in sorted(run.stdout.splitlines()) if "pytest" in line]
    both = [("avx2: avx2 AVX2 AVX2", f"{ROOT}/build/processors/avx2"),
            ("sse4: default SSE4_2 SSE41", f"{ROOT}/build/processors/sse4")]
    assert said == both[not newer:]


def test_which_processors_are_older_is_asked_of_torch():
    """The program that `make processors` asks, on this one and as if on the smallest."""
    program = re.search(r"\$\$\(python -c \\\n\t  '(.*)'\)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    for changes, older in (({"ATEN_CPU_CAPABILITY": "default"}, ""),
                           ({}, "processor-avx2" * (torch.backends.cpu.get_cpu_capability() == "AVX512"))):
        run = subprocess.run([sys.executable, "-c", program], env=os.environ | changes, capture_output=True, text=True)
        assert run.stdout.strip() == older and run.returncode == 0


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.fault)
def test_mutations_still_fit_the_package(mutation):
    source = (ROOT / "steerpaper" / f"{mutation.module}.py").read_text("utf-8")
    assert source.count(mutation.old) == 1 and mutation.old != mutation.new
    assert mutation.notebook in outputs()


def test_what_reads_the_rules_says_so():
    """So that the workflow runs those notebooks again, and no others, when the rules change."""
    rules = {"scorecard", "cases_of", "beside_each_other"}
    assert {module.stem for module in (ROOT / "steerpaper" / "paper").glob("*.py") if "claims()" in module.read_text()} == {
        "claims", "findings", "page", "second", "verdicts"}  # the first and the last two hold `rules`, pages the others
    for name, about in outputs().items():
        called = set(re.findall(r"sp\.paper\.(\w+)", (ROOT / "notebooks" / f"{name}.py").read_text("utf-8")))
        assert ("data/paper/claims.toml" in about.get("reads", [])) == bool(called & rules), name
        assert all((ROOT / file).is_file() for file in about.get("reads", []))


CI_TARGETS = ("site", "--jobs 2 figures processors PRESETS=organism-llama", "test", "mutations")


def test_ci_runs_what_a_person_runs():
    assert ".ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()
    assert "run: make site" in (ROOT / ".github/workflows/site.yml").read_text()
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = [line.strip() for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "set -euo pipefail"  # so that every line that fails does
    made = [line.partition(" >")[0].removeprefix("make ") for line in lines if line.startswith("make ")]
    assert made == list(CI_TARGETS)


def run_ci(folder, made):
    """`.ci/run` where `make` is these lines of a shell, in a folder of its own."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    for name, lines in (("make", made), ("chromium", ":"), ("git", ":")):
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{lines}\n")
        program.chmod(0o755)
    path = os.pathsep.join((str(folder / "bin"), os.environ["PATH"]))
    return subprocess.run([folder / ".ci" / "run"], env=os.environ | {"PATH": path}, capture_output=True, text=True)


@pytest.mark.parametrize("failing", [None, *CI_TARGETS])
def test_ci_fails_where_one_of_its_parts_does(tmp_path, failing):
    """Also one that runs beside others."""
    run = run_ci(tmp_path, f'[ "$*" != "{failing}" ] && echo "made $*"')
    assert (run.returncode == 0) == (failing is None), run.stderr
    if failing is None:
        assert sorted(run.stdout.splitlines()) == sorted(f"made {target}" for target in CI_TARGETS)


def test_ci_that_fails_leaves_nothing_running(tmp_path):
    fifo = tmp_path / "started"
    os.mkfifo(fifo)
    run = run_ci(tmp_path, f'case "$*" in *figures*) echo $$ > "{tmp_path}/pid"; echo > "{fifo}"; exec sleep 600;; '
                           f'test) read _ < "{fifo}"; exit 3;; esac')
    assert run.returncode == 3
    workflow, end = int((tmp_path / "pid").read_text()), time.monotonic() + 30
    while psutil.pid_exists(workflow) and psutil.Process(workflow).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_imports_go_down_the_map():
    """Every module is on the map, in its room, and imports only those before it, each from its own file."""
    page = (ROOT / "docs" / "map.md").read_text()
    listed = re.search(r"imports only from those above it in this list:\n(.*?)\ndata/", page, re.DOTALL)[1]
    rooms = [re.fullmatch(r"  (?:(\w+)/ +)?(\S.+)", line).groups() for line in listed.splitlines()]
    order = [f"steerpaper.{room}.{name}" if room else f"steerpaper.{name}" for room, names in rooms
             for name in names.split()]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
               for path in (ROOT / "steerpaper").rglob("[!_]*.py")}
    assert sorted(order) == sorted(modules)
    for name, tree in modules.items():
        found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported = {node.module if node.module in modules else f"{node.module}.{alias.name}"
                    for node in found if node.module.partition(".")[0] == "steerpaper" for alias in node.names}
        assert imported <= set(order[:order.index(name)]), name


def test_the_page_s_other_processor_is_one_that_is_tested():
    wanted = re.findall(r"^processor-sse4: export (\w+) := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "reproduction.md").read_text()
    assert len(wanted) == 4 and all(f"{name}={value}" in page or f'{name}="{value}"' in page for name, value in wanted)
