"""Break the package, one line at a time, in copies of it: do the recorded notebooks notice?

    make mutations

Each must fail with another output than is recorded, not with an exception; unbroken, the same notebooks pass. The
tests beside the notebooks are not asked: it is the recordings whose rounding could hide a fault.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutation:
    """A fault: in `module`, a path in the package, `old`, which stands there once, becomes `new`; `notebook` notices."""

    fault: str
    module: str
    old: str
    new: str
    notebook: str


MUTATIONS = [
    Mutation("wrong sign: DIM is harmless minus harmful", "vectors/extraction",
             "return (means[0] - means[1]).float()", "return (means[1] - means[0]).float()", "01_extract_vectors"),
    Mutation("shifted layer: streams are read one layer later", "steering",
             "model.layer(layer).input[:, positions]", "model.layer(layer).output[:, positions]", "01_extract_vectors"),
    Mutation("dropped norm: gradients at the MLPs' inputs", "circuits/gradients",
             "gradient = norm_vjp(gradient * gamma, at.middle, eps)", "gradient = gradient * gamma",
             "02_patching_circuits"),
    Mutation("dropped norm: queries, keys and values of circuit runs", "models/maps",
             "outputs = torch.bmm(x.flatten(1, 2), weight) / rms(x, eps).flatten(1, 2)",
             "outputs = torch.bmm(x.flatten(1, 2), weight)", "02_patching_circuits"),
]


def copy(folder: Path, mutation: Mutation | None) -> None:
    """What the recorded notebooks run on, with the fault in it."""
    shutil.copytree(ROOT / "steerpaper", folder / "steerpaper", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "reference", folder / "tests" / "reference")
    for name in ("data", "notebooks", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    if mutation:
        module = folder / "steerpaper" / f"{mutation.module}.py"
        source = module.read_text("utf-8")
        if source.count(mutation.old) != 1:
            sys.exit(f"{mutation.fault}: {mutation.old!r} stands {source.count(mutation.old)} times in {module.name}, "
                     "not once; adapt tests/mutations.py")
        module.write_text(source.replace(mutation.old, mutation.new), "utf-8")


def execute(folder: Path, build: Path, notebook: str) -> tuple[int, str, float]:
    """A recorded notebook up to its first failure: pytest's status, what it says, seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--color=no", "--nbval",
               "--nbval-current-env", f"tests/reference/{notebook}.ipynb"]
    environment = os.environ | {"PYTHONPATH": str(folder), "STEERPAPER_BUILD": str(build)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr, time.perf_counter() - began


def main() -> int:
    """Print what noticed which fault; 1 if nothing did."""
    failed = 0
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(2) as pool:
        before = Path(temporary, "build")  # of the unbroken package, by the notebooks so far
        for notebook in sorted({mutation.notebook for mutation in MUTATIONS}):
            running = []
            for mutation in [None, *(mutation for mutation in MUTATIONS if mutation.notebook == notebook)]:
                folder = Path(tempfile.mkdtemp(dir=temporary))
                copy(folder, mutation)
                if before.exists():
                    shutil.copytree(before, folder / "build")
                running.append((mutation, folder, pool.submit(execute, folder, folder / "build", notebook)))
            for mutation, folder, run in running:
                status, said, seconds = run.result()
                cell = re.search(r"^Cell (\d+): Cell outputs differ$", said, re.MULTILINE)
                right = status == 0 if mutation is None else status == 1 and cell is not None
                noticed = "passes" if status == 0 else f"cell {cell[1]}" if cell else "FAILED OTHERWISE"
                print(f"{'ok   ' if right else 'WRONG'} {mutation.fault if mutation else 'as it is':60} "
                      f"{notebook:22} {noticed:10} {seconds:4.0f} s", flush=True)
                if not right:
                    print(said[-3000:])
                    failed = 1
            before = running[0][1] / "build"
    return failed


if __name__ == "__main__":
    sys.exit(main())
