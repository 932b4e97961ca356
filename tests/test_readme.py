"""README and docs do what they say: Python blocks run, commands exist with their variables, and so do paths and links.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

from steerpaper.outputs import outputs
from steerpaper.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
GENERATED = [ROOT / "RESULTS.md", *sorted((ROOT / "figures").glob("*.md"))]
WORDS = 900  # of README.md, tables included: one screen, and what is behind which link
BLOCKS = [
    pytest.param(*block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```(\w*)\n(.*?)^```(?:\n\n```text\n(.*?)^```)?",
                                              page.read_text("utf-8"), re.MULTILINE | re.DOTALL), start=1)
]
# Shell lines are read and looked up here, not run:
NOT_RUN = {
    "make": "planned with make -n: most run for minutes to days; `make figures` and `make test` are run by .ci/run",
    ".venv/bin/papermill": "looked up, notebook and parameters: papermill runs every notebook in `make figures`",
    ".venv/bin/jupyter": "opens a browser",
    "pip": "needs a package index",
    "export": "sets variables for the commands after it",
    "hf": "needs the hub, and an account for gated models",
}
FOLDERS = ("data", "figures", "steerpaper", "notebooks", "tests", "benchmarks", "profiles")


def blocks(kind):
    return pytest.mark.parametrize("code, output", [
        pytest.param(*block.values[1:], id=block.id) for block in BLOCKS if block.values[0] == kind])


def commands() -> list[str]:
    """Every line of the shell blocks, and what stands between backticks and begins like a command."""
    found = [line for kind, code, _ in (block.values for block in BLOCKS) if kind in ("bash", "sh", "console")
             for line in code.replace("\\\n", " ").splitlines()]
    prose = " ".join(re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
                     for page in PAGES)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    found += [span for span in spans if span.split()[0] in NOT_RUN]
    return list(dict.fromkeys(line for line in found if shlex.split(line, comments=True)))


def test_there_are_blocks_of_both_kinds():
    kinds = [block.values[0] for block in BLOCKS]
    assert {"python", "bash"} <= set(kinds) <= {"python", "bash", "text", "diff", ""}  # one without a name is a drawing


@blocks("python")
def test_python_runs_in_a_fresh_process(code, output, tmp_path):
    """Anywhere, with nothing computed before; what it prints is what the text block after it shows."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEERPAPER_")}
    environment |= {"PYTHONPATH": str(ROOT), "STEERPAPER_BUILD": str(tmp_path / "build"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == output or not output


def test_the_example_steers():
    """The answer turns into a refusal."""
    (shown,) = [output for kind, code, output in (block.values for block in BLOCKS) if "sp.Steering(" in code]
    plain, steered = shown.splitlines()
    assert plain.startswith("I can tell you how to bake") and steered.startswith("I'm sorry, but I cannot help")


@pytest.mark.parametrize("line", commands())
def test_commands_exist(line):
    words = shlex.split(line, comments=True)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    assert words[0] in NOT_RUN, f"{line!r}: neither run here nor is it said why not"
    if words[0] == "make":
        planned = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert planned.returncode == 0, planned.stderr
        given = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        names = [*shlex.split(given.get("PRESETS", "")), *filter(None, [given.get("MODEL")])]
        assert not [name for name in names if name not in PRESETS and not name.startswith(("/models/", "..."))]
        assert "PROFILE" not in given or (ROOT / given["PROFILE"] / "config.yaml").is_file()
    elif words[0] == ".venv/bin/papermill":
        names = [word for flag, word in zip(words, words[1:]) if flag in ("-p", "-r")]
        assert names and set(names) <= parameters(ROOT / words[1]), line


def parameters(notebook: Path) -> set[str]:
    """What the cell tagged so declares."""
    (cell,) = [cell for cell in jupytext.read(notebook).cells if "parameters" in cell.metadata.get("tags", [])]
    return {target.id for statement in ast.parse(cell.source).body for target in statement.targets}


def test_the_readme_is_short():
    text = re.sub(r"^```.*?^```|<!--.*?-->", "", PAGES[0].read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)  # where a link goes is not read
    assert len([word for word in text.split() if re.search(r"\w", word)]) <= WORDS


def anchors(page: Path) -> set[str]:
    """What a link to a page may name after #, as GitHub makes it of headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = [re.sub(r"[^\w -]", "", heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {heading.lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES + GENERATED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text("utf-8"))
    assert links
    assert not [path for path, _ in links if not (page.parent / path).exists()]
    named = {(path, anchor) for path, anchor in links if anchor}
    assert not [(path, anchor) for path, anchor in named if anchor not in anchors(page.parent / path if path else page)]


@pytest.mark.parametrize("page", PAGES + GENERATED, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_are_told_in_words(page):
    pictures = re.findall(r"!\[([^]]*)\]", page.read_text("utf-8"))
    assert all(len(words.split()) > 3 for words in pictures)
    assert pictures or page.parent != ROOT / "figures" or page.name == "README.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page):
    text = page.read_text("utf-8")
    named = [path for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[^`\s]*)`", text) if not set("<*{") & set(path)]
    ignored = {"data/public", "data/models"}  # downloaded
    assert named
    assert not [path for path in named if path not in ignored and not (ROOT / path).exists()]


def test_figures_and_tables_that_are_named_are_written():
    """The table of the paper's figures and tables names files of `notebooks/outputs.toml`."""
    page = (ROOT / "docs" / "figures.md").read_text("utf-8")
    section = re.search(r"^# Every figure and table of the paper$(.*?)^## ", page, re.MULTILINE | re.DOTALL)[1]
    rows = "".join(line.split("|")[2] for line in section.splitlines() if line.startswith("|"))
    written = {name for about in outputs().values() for name in (*about["figures"], *about["tables"])}
    named = re.findall(r"`(\w+)(?:\.csv)?`", rows)
    assert len(named) > 20 and not set(named) - written
