"""`make figures` as people meet it: folders with spaces, mistyped names, no home, kills, failures.

In a clone of its own with two notebooks that compute nothing; the package and the workflow are the real ones.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from steerpaper.presets import get_presets
from test_project import CI_TARGETS
import workflow

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = """
[01_first]
after = []
figures = []
tables = []
tensors = []

[02_second]
after = ["01_first"]
reads = ["data/paper/claims.toml"]
figures = []
tables = []
tensors = []
"""
NOTEBOOK = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
preset = "none"

# %%
import hashlib
import os
import time
from pathlib import Path

if Path("do").exists():
    exec(Path("do").read_text())
"""


# What a model does by itself, for this file "found": nothing that could be steered.
UNSTEERED = """import sys
from pathlib import Path

print("refuses 0 of 16" if Path("found").exists() else "")
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone under a path with spaces, with an environment under another one and a model folder with one, too."""
    clone = tmp_path_factory.mktemp("a place") / "my clone"
    shutil.copytree(ROOT / "steerpaper", clone / "steerpaper", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "Snakefile", "jupytext.toml", "requirements.txt", "requirements-site.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "profiles", clone / "profiles")
    for path in (clone / "steerpaper").rglob("__init__.py"):
        path.write_text("")  # quicker
    (clone / "steerpaper" / "vectors" / "methods.py").write_text("METHODS, get_method = {}, None\n")
    (clone / "steerpaper" / "behaviour" / "__main__.py").write_text(UNSTEERED)
    (clone / "data" / "paper").mkdir(parents=True)
    (clone / "data" / "paper" / "claims.toml").touch()
    (clone / "notebooks").mkdir()
    (clone / "notebooks" / "outputs.toml").write_text(OUTPUTS)
    for name in ("01_first", "02_second"):
        (clone / "notebooks" / f"{name}.py").write_text(NOTEBOOK)
    model = clone / "my models" / "A model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    environment = clone / "my env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "all.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (environment / "share").mkdir(exist_ok=True)
    (environment / "share" / "jupyter").symlink_to(Path(sys.prefix) / "share" / "jupyter")
    (environment / ".installed").touch()
    return clone


def test_recorded_notebooks_stay_in_order_beside_other_tests(tmp_path):
    """As `make test` runs them: each notebook needs what the one before it wrote, and other files run meanwhile."""
    (tmp_path / "conftest.py").write_text(
        "import pytest\n" + re.search(r"^@pytest.hookimpl.*?(?=^\S+ =)", (ROOT / "tests" / "conftest.py").read_text(),
                                      re.MULTILINE | re.DOTALL)[0])
    for number in range(1, 4):
        reads = f"assert open('made').read() == '{'.' * (number - 1)}'" if number > 1 else "1"
        cells = [reads, "open('made', 'a').write('.')"]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{cell};") for cell in cells])
        nbformat.write(notebook, tmp_path / f"0{number}.ipynb")
        (tmp_path / f"test_{number}.py").write_text("import time\ndef test_a(): time.sleep(1)\ndef test_b(): pass\n")
    command = re.search(r"^\tpython -m pytest (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    run = subprocess.run([sys.executable, "-m", "pytest", *command, "--nbval-lax", "-v"], cwd=tmp_path,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    passed = re.findall(r"^\[(gw\d)\].* PASSED 0(\d)\W+ipynb::Cell (\d)", run.stdout, re.MULTILINE)
    assert [cell for _, *cell in passed] == [[number, cell] for number in "123" for cell in "01"]
    assert len({worker for worker, *_ in passed}) == 1
    assert len(re.findall(r"^\[gw\d\].* PASSED test_", run.stdout, re.MULTILINE)) == 6


def start(clone, *arguments, **environment):
    """`make` as someone types it, none of this run's own settings."""
    own = {"PYTHONPATH", "PYTHONHASHSEED", "OMP_NUM_THREADS", "MPLBACKEND", "STEERPAPER_BUILD", "MAKEFLAGS", "MFLAGS",
           "MAKELEVEL", "MAKEOVERRIDES", "VENV", "PRESETS", "MODEL", "PROFILE", "KILLS", "SEEDS"}
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    command = ["make", "VENV=my env", *arguments]
    return subprocess.Popen(command, cwd=clone, env=inherited | environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)


def make(clone, *arguments, **environment):
    process = start(clone, *arguments, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def waiting(what, seconds=120):
    """Until something is there."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def test_folders_with_spaces_and_a_calm_run(clone):
    shutil.rmtree(clone / "build", ignore_errors=True)
    status, out, err = make(clone, "figures", f'PRESETS=tiny "{clone}/my models/A model"')
    assert status == 0, err
    assert {path.parent.name for path in clone.glob("build/*/02_second.ipynb")} == {"tiny", "a-model"}
    parameters = (clone / "build/a-model/02_second.ipynb").read_text()
    assert f'preset = \\"{clone}/my models/A model\\"' in parameters
    for done in ("02_second on a-model", "01_first on tiny; log build/tiny/01.log", "6 of 6 steps (100%) done",
                 "is there anything to steer in a-model? log build/a-model/unsteered.log"):
        assert done in err
    assert "eason" not in err and "ailed" not in err and max(map(len, err.splitlines())) < 200  # no lists of files
    assert [line.partition(":")[0] for line in out.splitlines()[:2]] == ["tiny", "a-model"]  # compared last
    assert not (clone / "build" / "home").exists()
    status, _, err = make(clone, "figures", f"PRESETS={clone}/my models/A model")  # alone it needs no quotes
    assert status == 0 and "Nothing to be done" in err
    (clone / "data" / "paper" / "claims.toml").write_text("# another\n")  # costs what reads it
    status, _, err = make(clone, "figures", "PRESETS=tiny")
    assert status == 0 and "02_second on tiny" in err and "01_first" not in err


def test_a_model_with_nothing_to_steer_ends_with_that_and_holds_up_no_other(clone):
    shutil.rmtree(clone / "build", ignore_errors=True)
    (clone / "found").touch()
    (clone / "do").write_text(  # as notebook 01 does, for the one preset that it is so on
        "if preset != 'tiny':\n"
        "    from steerpaper import paths\n"
        "    path = paths.results('a-model') / 'unsteered.csv'\n"
        "    path.parent.mkdir(parents=True)\n"
        "    path.write_text('prompts,n,expressed,share,share_low,share_high\\nharmful,16,0,0,0,0.2\\nharmless,16,1,0.06,0,0.3')\n"
        "    raise SystemExit\n")
    presets = f'PRESETS="{clone}/my models/A model" tiny'
    status, out, err = make(clone, "figures", presets)
    assert status == 0, err
    assert sorted(path.name for path in (clone / "build/a-model").glob("*[!el].ipynb")) == ["01_first.ended.ipynb"]
    assert {path.name for path in clone.glob("build/tiny/0?_*d.ipynb")} == {"02_second.ipynb"}
    assert (clone / "build/tiny/01_first.ipynb").exists()
    assert ("a-model: unsteered, the model is judged to refuse 0 of 16 harmful prompts (95 % interval 0% to 20%), less than "
            "25%: nothing to steer away from; so notebook 01 ends there, and no other runs") in out.splitlines()
    status, _, err = make(clone, "figures", presets)
    assert status == 0 and "Nothing to be done" in err
    for file in ("found", "do"):
        (clone / file).unlink()
    stub = clone / "steerpaper" / "behaviour" / "__main__.py"
    stub.write_text("raise ValueError('no such model')")  # the code has changed: asked again
    status, _, err = make(clone, "figures", presets)
    stub.write_text(UNSTEERED)
    assert status and err.splitlines()[-2] == (
        "unsteered on a-model failed: ValueError: no such model; the whole log: build/a-model/unsteered.log")
    status, _, err = make(clone, "figures", presets)
    assert status == 0 and (clone / "build/a-model/02_second.ipynb").exists(), err


def test_names_of_variables(clone):
    status, out, err = make(clone, "figures", "PRESET=tiny")
    assert status and not out
    assert "unknown variable of make figures 'PRESET' (did you mean 'PRESETS'?): choose one of PRESETS, VENV" in err
    for target, wrong, right in (("help", "venv=x", "VENV"), ("weights", "MODELS=a b C=d", "MODEL"), ("kill", "KILL=3", "KILLS")):
        assert f"(did you mean {right!r}?)" in make(clone, target, wrong)[2]
    assert "goes before the command" in make(clone, "help", "HF_HUB_OFFLINE=1")[2]


@pytest.mark.parametrize("target, wrong, right", [
    ("figures", "MODEL=tiny", "PRESETS"), ("record", "MODEL=tiny", "PRESETS"), ("paper", "PRESETS=tiny", "MODEL"),
    ("weights", "PRESETS=tiny", "MODEL"), ("seeds", "PRESETS=tiny", "SEEDS"), ("test", "PRESETS=tiny", "VENV"),
    ("notebooks", "PRESETS=tiny", "VENV"), ("figures", "SEEDS=3", "PRESETS"),
])
def test_variables_that_a_target_does_not_read(clone, target, wrong, right):
    status, out, err = make(clone, "-n", target, wrong)
    assert status and not out and f"unknown variable of make {target} {wrong.partition('=')[0]!r}" in err
    assert re.search(rf"choose one of [A-Z, ]*\b{right}\b", err)
    assert make(clone, "-n", target)[0] == 0


@pytest.mark.parametrize("given", [
    *CI_TARGETS, "processors VENV=.venv", "paper processors MODEL=gemma-2-2b-it",
    "processors seeds SEEDS=4 PROFILE=profiles/slurm",
])
def test_variables_that_one_of_several_targets_reads(clone, given):
    """Also where another of them calls make once more."""
    status, out, err = make(clone, "-n", *given.split())
    assert status == 0, err
    assert ("pytest" in out and "processors/sse4" in out) == ("processors" in given)


def test_results_of_another_folder_of_the_same_name_are_left_alone(clone):
    """Snakemake removes what a notebook wrote before it starts: the notebook itself would say so too late."""
    other, results = clone / "other models" / "A model", clone / "build" / "a-model" / "results"
    shutil.rmtree(clone / "build", ignore_errors=True)
    for folder in (other, results):
        folder.mkdir(parents=True)
    (other / "config.json").write_text("{}")
    (other / "model.safetensors").write_bytes(b"weights")
    kept = {"scores.csv": "n\n1\n", "manifest.json": json.dumps({
        "model": {"preset": "a-model", "model": "my models/A model", "weights": "0" * 64, "dtype": "float32"}, "tables": {}})}
    for name, content in kept.items():
        (results / name).write_text(content)
    status, out, err = make(clone, "figures", f"PRESETS={other}")
    assert status and "holds results of another model, my models/A model; those of other models/A model would" in err
    assert {path.name: path.read_text() for path in results.iterdir()} == kept and "Job" not in out
    shutil.rmtree(clone / "build")


def test_clean_leaves_a_build_folder_elsewhere_alone(clone, tmp_path):
    for folder in (tmp_path / "elsewhere", clone / "build"):
        folder.mkdir(exist_ok=True)
        (folder / "kept").touch()
    status, _, err = make(clone, "clean", STEERPAPER_BUILD=str(tmp_path / "elsewhere"))
    assert status and "make clean removes build/ alone" in err
    assert (tmp_path / "elsewhere/kept").exists() and (clone / "build/kept").exists()
    assert make(clone, "clean")[0] == 0 and not (clone / "build").exists() and (tmp_path / "elsewhere/kept").exists()


@pytest.mark.parametrize("given", ['tiny"', "tny", "$$(touch made)"])
def test_presets_that_are_none_are_said_to_be(clone, given):
    with pytest.raises(ValueError) as error:
        get_presets(given.replace("$$", "$"))
    status, out, err = make(clone, "figures", f"PRESETS={given}")
    said = str(error.value).partition(": choose one of")[0]  # what there is to choose, other tests add to
    assert status and not out and said in err
    assert "Traceback" not in err and "bash" not in err and not (clone / "made").exists()


def test_neither_home_nor_folder_for_temporary_files(clone):
    shutil.rmtree(clone / "build", ignore_errors=True)
    nowhere = {name: "/proc/no/such" for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    status, _, err = make(clone, "figures", "PRESETS=tiny", **nowhere)
    assert status == 0, err
    assert list((clone / "build" / "home").iterdir()) and (clone / "build" / "tmp").is_dir()


@pytest.mark.parametrize("can_read", [True, False])
def test_a_hugging_face_cache_stays_in_use(clone, tmp_path, can_read):
    cache = tmp_path / "huggingface"
    if can_read:
        cache.mkdir()
    out = make(clone, "-pn", "help", HOME="/proc/no/such", XDG_CACHE_HOME=str(tmp_path))[1]
    expected = cache if can_read else clone / "build/home/.cache/huggingface"
    assert f"HF_HOME := {expected}" in out.splitlines()
    assert f"HOME := {clone}/build/home" in out.splitlines()
    assert f"HF_HOME := {expected}" not in make(clone, "-pn", "help", HOME=str(tmp_path))[1].splitlines()


def test_failures_are_said_once_and_last(clone):
    """An exception with a message of two lines in one notebook, and a kernel that is killed in another."""
    shutil.rmtree(clone / "build", ignore_errors=True)
    (clone / "do").write_text("if preset != 'tiny':\n    os.kill(os.getpid(), 9)\n"
                              "raise ValueError('no such layer:\\n40 of 12')")
    status, out, err = make(clone, "figures", "PRESETS=tiny organism-llama")
    (clone / "do").unlink()
    assert status and not out
    *before, first, second, maker = err.splitlines()
    assert maker.startswith("make: ***")
    assert sorted([first, second]) == [
        "notebook 01_first on organism-llama failed: nbclient.exceptions.DeadKernelError: Kernel died: its process was ended "
        "from outside, most often for want of memory; the whole log: build/organism-llama/01.log",
        "notebook 01_first on tiny failed: ValueError: no such layer: 40 of 12; the whole log: build/tiny/01.log",
    ]
    assert "no such layer" not in "\n".join(before) and "Kernel died" not in "\n".join(before)
    assert len(before) < 60 and max(map(len, before)) < 300  # what Snakemake says of two jobs, without their files
    assert "no such layer" in (clone / "build/tiny/01.log").read_text()


@pytest.mark.parametrize("given", [["--help"], [], ["start", "--cores", "2"], ["hold", "a"]])
def test_usage_is_said_to_who_asks_or_mistypes(given):
    said = subprocess.run([sys.executable, ROOT / "profiles" / "workflow.py", *given], capture_output=True, text=True)
    assert said.returncode == (given != ["--help"]) and not said.stderr
    assert "workflow.py start SNAKEMAKE_OPTIONS... --presets PRESETS..." in said.stdout


@pytest.mark.parametrize("log, why", [
    ("Traceback (most recent call last):\nx.KeyError: 'a'\n\nDuring handling\n\nx.y.LocalEntryNotFoundError: no net\n",
     "x.y.LocalEntryNotFoundError: no net"),
    ("OSError: [Errno 28] No space left on device\n", "OSError: [Errno 28] No space left on device"),
    ("\x1b[0;31mMemoryError\x1b[0m: 8 GB\n", "MemoryError: 8 GB"),
    ("KeyboardInterrupt\n", "KeyboardInterrupt"),
    ("a\n/usr/bin/bash: line 9: 123 Killed   python -m papermill\n",
     "Killed: its process was ended from outside, most often for want of memory"),
    ("a\r 20/92 [00:10]/usr/bin/bash: line 9:  123 Killed      python -m papermill\n"
     "[IPKernelApp] WARNING | Parent appears to have exited, shutting down.\n",
     "Killed: its process was ended from outside, most often for want of memory"),
    ("bash: line 8: 12 Segmentation fault      (core dumped) python -m papermill\n", "Segmentation fault"),
    ("", "its log is empty"),
])
def test_reason_is_the_end_of_a_log(log, why):
    assert workflow.reason(log) == why


def test_of_jobs_on_a_cluster_their_end_is_said(tmp_path, monkeypatch):
    """Cancelled, failed, failed before it wrote a log, and not submitted; the words are those of a real run."""
    monkeypatch.setattr(workflow, "BUILD", tmp_path)
    (tmp_path / "tiny").mkdir()
    for name in ("03.log", "07.log"):
        (tmp_path / "tiny" / name).write_text("KeyError: 'x'\n")
    cluster = tmp_path / "5.log"
    cluster.write_text("python: command not found\n")
    jobs = [("03_qk_freeze", "CANCELLED", 4), ("07_layers_and_robustness", "FAILED", 3),
            ("02_patching_circuits", "FAILED", 5)]
    log = "".join(
        f"Error in rule notebook_{name}:\n    message: SLURM-job '{job}' failed, SLURM status is: '{status}'. Detailed "
        "failure reason unavailable (status command is not 'sacct').For further error details see the cluster/cloud log\n"
        f"    log: {tmp_path}/tiny/{name[:2]}.log (check log file(s) for error details)\n"
        f"    log: {tmp_path}/{job}.log (check log file(s) for error details)\n"
        f"    external_jobid: {job}\n[Thu Nov 26 07:25:41 2026]\n" for name, status, job in jobs)
    log += ("Error in rule unsteered:\n    message: SLURM sbatch failed. The error message was 'sbatch: error: Batch job "
            "submission failed: Requested node configuration is not available'.\n"
            f"    log: {tmp_path}/tiny/unsteered.log (check log file(s) for error details)\n")
    log += (f"Error in rule organism:\n    message: SLURM-job '9' failed, SLURM status is: 'TIMEOUT'. \n"
            f"    log: {tmp_path}/organisms/llama-2.log (check log file(s) for error details)\n")
    assert workflow.failures(log) == [
        "notebook 03_qk_freeze on tiny failed: its Slurm job 4 ended as CANCELLED; the whole log: "
        f"{tmp_path}/tiny/03.log",
        f"notebook 07_layers_and_robustness on tiny failed: KeyError: 'x'; the whole log: {tmp_path}/tiny/07.log",
        f"notebook 02_patching_circuits on tiny failed: python: command not found; the whole log: {cluster}",
        "unsteered on tiny failed: sbatch: error: Batch job submission failed: Requested node configuration is not available",
        "training of llama-2 failed: its Slurm job 9 ended as TIMEOUT",
    ]


def test_jobs_that_a_killed_workflow_has_left_in_a_queue_are_not_run_beside(clone, tmp_path):
    """Snakemake in such a job would remove what its twin has written, before the twin's lock stops it."""
    shutil.rmtree(clone / "build", ignore_errors=True)
    name = f"steerpaper-{hashlib.sha256(str((clone / 'build').resolve()).encode()).hexdigest()[:8]}"
    squeue = tmp_path / "squeue"
    listed = f"7|{name}_b137|rule_notebook_01_first_wildcards_tiny \n8|another|a|b\nCLUSTER: one"
    squeue.write_text(f"#!/bin/sh\necho '{listed}'\n")
    squeue.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    status, out, err = make(clone, "figures", "PRESETS=tiny", PATH=path)
    assert status and not out and not (clone / "build" / "tiny").exists()
    assert re.search(r"^notebooks of an earlier run.*:\n  01_first on tiny \(scancel 7\)\nwait for them, or stop", err,
                     re.MULTILINE), err
    squeue.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    assert make(clone, "figures", "PRESETS=tiny", PATH=path)[0] == 0


def test_notebooks_of_a_killed_workflow_do_not_run_beside_new_ones(clone):
    shutil.rmtree(clone / "build", ignore_errors=True)
    (clone / "do").write_text("Path('started').touch()\ntime.sleep(300)")
    first = start(clone, "figures", "PRESETS=tiny")
    waiting((clone / "started").exists)
    beside = make(clone, "figures", "PRESETS=tiny")
    assert beside[0] and "already running in this folder" in beside[2]
    tree = psutil.Process(first.pid).children(recursive=True)
    (snakemake,) = [one for one in tree if one.cmdline()[1:3] == ["-m", "snakemake"]]
    for one in (psutil.Process(snakemake.ppid()), snakemake):
        one.kill()
    first.communicate()
    (clone / "do").unlink()
    status, out, err = make(clone, "figures", "PRESETS=tiny")
    assert status and not out
    said = re.search(r"^notebooks of an earlier run.*:\n  01_first on tiny \(kill ([\d ]+)\)\nwait for them, or stop",
                     err, re.MULTILINE)
    assert said, err
    for process in said[1].split():  # as told
        os.kill(int(process), signal.SIGTERM)
    waiting(lambda: not [one for one in tree if one.is_running() and one.status() != psutil.STATUS_ZOMBIE])
    status, out, err = make(clone, "figures", "PRESETS=tiny")
    assert status == 0, err


def test_a_job_that_starts_late_on_a_cluster_does_not_run_beside_its_twin(clone, tmp_path):
    """Queued for a killed workflow, on a node that nobody here sees: it takes the lock, or ends before it computes."""
    hold = f'exec 9>> "{tmp_path}/.lock"; "{clone}/my env/bin/python" "{clone}/profiles/workflow.py" hold "{tmp_path}/.lock" 9'
    first = subprocess.Popen(["bash", "-ec", f"{hold}; echo held; read"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True)
    assert first.stdout.readline() == "held\n"
    second = subprocess.run(["bash", "-ec", f"{hold}; echo held"], capture_output=True, text=True)
    assert second.returncode and not second.stdout
    assert f"this notebook is already running (process {first.pid} on {os.uname().nodename})" in second.stderr
    first.communicate("\n")
    assert subprocess.run(["bash", "-ec", f"{hold}; echo held"], capture_output=True, text=True).stdout == "held\n"
