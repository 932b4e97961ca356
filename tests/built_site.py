"""The site, built as `make site` does."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build_site(folder: Path) -> Path:
    """Build it in a folder; where its pages are."""
    recipe = re.search(r"^\tpython -m (sphinx .*?)\\\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = f"{recipe[1]} {recipe[2]}".replace('"', "").replace("$(BUILD)", str(folder)).split()
    run = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "site"
