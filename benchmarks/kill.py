"""Kill the workflow at random moments: every rerun must finish, with the tables and figures of a run left in peace.

    make kill KILLS=10 PRESETS=tiny

All processes are killed by SIGKILL, so that none can clean up, at moments drawn uniformly (seed 0) over the length of
an undisturbed run. After each kill what lies on disk is set aside, the workflow is run to its end and compared, and the
next kill strikes a run that goes on from what was set aside: the tenth rerun has ten kills behind it. All of this
happens in build/kill; what was computed elsewhere and what is on record is not touched.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "kill"
os.environ["STEERPAPER_BUILD"] = str(BUILD)  # of the workflow, too

from steerpaper.presets import get_presets  # noqa: E402

WRITTEN = {".snakemake": ROOT / ".snakemake", "build": BUILD}  # all that the workflow writes into


def clear(presets: list[str]) -> None:
    """Leave nothing of the presets."""
    for preset in presets:
        shutil.rmtree(BUILD / preset, ignore_errors=True)


def copy(sources: dict[str, Path], targets: dict[str, Path]) -> None:
    """Make what the workflow writes in `targets` what it is in `sources`, times of files included."""
    for name, target in targets.items():
        shutil.rmtree(target, ignore_errors=True)
        if sources[name].exists():
            shutil.copytree(sources[name], target, symlinks=True)


def digests(presets: list[str]) -> dict[str, str]:
    """sha256 of every table and figure; half-written files are hidden ones and no result."""
    folders = [BUILD / preset / kind for preset in presets for kind in ("results", "figures")]
    files = [path for folder in folders for path in sorted(folder.glob("[!.]*"))]
    return {str(path.relative_to(BUILD)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def killed(command: list[str], moment: float) -> None:
    """Start the workflow and kill it with all that it started after so many seconds."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment)
    # A notebook's kernel has a process group of its own: find the tree, children first looked up, then killed.
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in tree:
        try:
            one.kill()
        except psutil.NoSuchProcess:  # it ended meanwhile
            pass
    process.wait()
    psutil.wait_procs(tree)


def finished(command: list[str]) -> float:
    """Run the workflow to its end; seconds."""
    start = time.perf_counter()
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"the workflow failed:\n{run.stdout}{run.stderr}")
    return time.perf_counter() - start


def main(kills: int, given: str) -> None:
    """Compare `kills` interrupted runs with an undisturbed one."""
    command = [sys.executable, "profiles/workflow.py", "start", "--cores", "2", "--rerun-incomplete", "--presets", given]
    presets = [preset.name for preset in get_presets(given).values()]
    clear(presets)
    whole = finished(command)
    expected = digests(presets)
    print(f"undisturbed: {whole:.0f} s, {len(expected)} tables and figures", flush=True)
    clear(presets)
    different, before = 0, 0.0
    with tempfile.TemporaryDirectory() as temporary:
        aside = {name: Path(temporary, name) for name in WRITTEN}
        for moment in sorted(np.random.default_rng(0).uniform(0, whole, size=kills)):
            killed(command, moment - before)
            written = len(digests(presets))
            copy(WRITTEN, aside)
            rest, found = finished(command), digests(presets)
            copy(aside, WRITTEN)
            wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            different += bool(wrong)
            print(f"killed after {moment:.0f} s with {written} files there, finished in {rest:.0f} s more: "
                  f"{'DIFFERENT: ' + ', '.join(wrong) if wrong else 'identical'}", flush=True)
            before = moment
    finished(command)
    sys.exit(f"{different} of {kills} reruns differ" if different else 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int)
    parser.add_argument("presets")
    arguments = parser.parse_args()
    main(arguments.kills, arguments.presets)
