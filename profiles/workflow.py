"""What the Snakefile needs outside of itself; the Makefile calls the first, every notebook's job the second.

    python profiles/workflow.py start SNAKEMAKE_OPTIONS... --presets PRESETS...    run it, one at a time; say last what failed
    python profiles/workflow.py hold FILE DESCRIPTOR                               mark a notebook as running until its job ends

Locks are the operating system's: none outlives the processes that hold it, however these end.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

BUILD = Path(os.environ.get("STEERPAPER_BUILD") or "build").absolute()
# Slurm's jobs of this build folder, by the beginning of their names.
JOBS = f"steerpaper-{hashlib.sha256(str(BUILD.resolve()).encode()).hexdigest()[:8]}"
_RAISED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt|Warning|Killed)(?=: |:?$)", re.MULTILINE)
# What the shell says of a process that a signal has ended, and then a kernel whose papermill that was.
_SIGNAL = re.compile(r"^.*bash: line \d+: +\d+ (\w+(?: \w+)*).*", re.MULTILINE)
_ORPHAN = re.compile(r"^\[IPKernelApp\] WARNING \| Parent appears to have exited.*", re.MULTILINE)
_FAILED = re.compile(r"^Error in rule (\w+):\n((?: +[^\n]*\n?)+)", re.MULTILINE)
_LOG = re.compile(r"^ +log: (.+?) \(check log file", re.MULTILINE)
# What a job's own log cannot say; of one that FAILED it says more than Slurm does.
_ENDED = re.compile(r"^ +message: SLURM-job '(\d+)' failed.*?status is: '((?!FAILED')\w+)'", re.MULTILINE)
_REFUSED = re.compile(r"^ +message: SLURM sbatch failed\. The error message was '(.+)'", re.MULTILINE)


def start(options: list[str], presets: list[str]) -> int:
    """Snakemake's exit status; one workflow at a time runs in a build folder, none beside notebooks of a killed one."""
    BUILD.mkdir(parents=True, exist_ok=True)
    lock = os.open(BUILD / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    if not _taken(lock):
        sys.exit("the workflow is already running in this folder: wait for it, or stop it")
    if running := _running():
        sys.exit("notebooks of an earlier run, whose workflow was killed, still run here:\n" + "\n".join(running)
                 + "\nwait for them, or stop them, and start again")
    began = time.time()
    if importlib.util.find_spec("snakemake_executor_plugin_slurm"):  # which knows the option
        options = [*options, "--slurm-jobname-prefix", JOBS]
    command = [sys.executable, "-m", "snakemake", "--nolock", *options, "--config", f"presets={json.dumps(presets)}"]
    signal.signal(signal.SIGINT, lambda *_: None)  # a terminal sends it to Snakemake, too, which ends in order
    snakemake = subprocess.Popen(command, pass_fds=[lock])  # held for as long as it lives, whoever kills this process
    signal.signal(signal.SIGTERM, lambda *_: snakemake.terminate())
    status = snakemake.wait()
    logs = [path for path in Path(".snakemake/log").glob("*.log") if path.stat().st_mtime >= began - 1]
    said = [line for path in logs for line in failures(path.read_text("utf-8", "replace"))] if status else []
    print(*dict.fromkeys(said), sep="\n", end="\n" if said else "", file=sys.stderr)
    return 1 if status < 0 else status


def hold(path: Path, descriptor: int) -> None:
    """Lock the open file of a notebook's job, for as long as any process of the job has it open."""
    if not _taken(descriptor):
        by = path.read_text().strip()
        sys.exit(f"RuntimeError: this notebook is already running ({by}): wait for it, or stop it")
    os.ftruncate(descriptor, 0)
    job = os.environ.get("SLURM_JOB_ID")
    held = f"Slurm job {job}" if job else f"process {os.getppid()}"
    os.write(descriptor, f"{held} on {socket.gethostname()}\n".encode())


def failures(log: str) -> list[str]:
    """A line for every job of this build folder that failed, by Snakemake's log: which, on what, and why."""
    said = []
    for name, about in _FAILED.findall(log):
        own, *others = map(Path, _LOG.findall(about) or [""])
        if not own.absolute().is_relative_to(BUILD):
            continue
        there = next((path for path in [own, *others] if path.is_file()), None)  # a cluster's, if it wrote none itself
        if ended := _ENDED.search(about):
            why = "its Slurm job {} ended as {}".format(*ended.groups())
        elif refused := _REFUSED.search(about):
            why, there = refused[1], None
        else:
            why = reason(there.read_text("utf-8", "replace")) if there else "it has left no log"
        what = f"training of {own.stem}" if name == "organism" else f"{name.replace('_', ' ', 1)} on {own.parent.name}"
        said.append(f"{what} failed: {why}" + (f"; the whole log: {there}" if there else ""))
    return said


def reason(log: str) -> str:
    """The exception or the signal that a job's log ends in, or else its last line."""
    log = _SIGNAL.sub(r"\1", _ORPHAN.sub("", re.sub(r"\x1b\[[\d;]*m", "", log))).strip()
    raised = list(_RAISED.finditer(log))
    lines = (log[raised[-1].start():] if raised else log.rpartition("\n")[2]).splitlines() or ["its log is empty"]
    said = " ".join(line.strip() for line in lines[:4])
    outside = said == "Killed" or "DeadKernelError" in said
    return said + ": its process was ended from outside, most often for want of memory" * outside


def _taken(descriptor: int) -> bool:
    """Whether this process, and whom it leaves the open file to, now has the file for itself."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _running() -> list[str]:
    """The notebooks that are running or, on a cluster, waiting for it, with how to stop them."""
    queued = _queued()
    said = [f"  {what} (scancel {job})" for job, what in queued.items()]
    for path in sorted(BUILD.glob("*/.*.lock")):
        with open(path) as file:
            if _taken(file.fileno()):
                continue
            by = file.read().strip()
            job = re.match(r"Slurm job (\d+)", by)
            if job and job[1] in queued:
                continue
            here = [str(process.pid) for process in psutil.process_iter() if _has_open(process, path)]
            where = f"kill {' '.join(here)}" if here else f"{by}; on a cluster, cancel its job"
            said.append(f"  {path.name[1:-5]} on {path.parent.name} ({where})")
    return said


def _queued() -> dict[str, str]:
    """Slurm's jobs of this build folder, waiting ones included: one that starts removes what it is to write again."""
    if not shutil.which("squeue"):
        return {}
    command = ["squeue", "--me", "--noheader", "--format=%i|%j|%k"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return {
        job: re.sub(r"^rule_(?:notebook_)?(.+)_wildcards_", r"\1 on ", comment.strip())
        for job, name, comment in (line.split("|", 2) for line in lines if line.count("|") > 1) if name.startswith(JOBS)
    }


def _has_open(process: psutil.Process, path: Path) -> bool:
    try:
        return process.pid != os.getpid() and any(file.path == str(path.resolve()) for file in process.open_files())
    except psutil.Error:  # another user's, or one that has just ended
        return False


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hold", file, descriptor]:
            hold(Path(file), int(descriptor))
        case ["start", *given] if "--presets" in given:
            at = given.index("--presets")
            sys.exit(start(given[:at], given[at + 1:]))
        case given:
            print(__doc__.strip())
            sys.exit(given != ["--help"])
