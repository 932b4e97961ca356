"""The pages of figures: every figure that the notebooks write has words and tables, and stands on its model's page."""

import re
from pathlib import Path

import jupytext
import pytest

from steerpaper import paths
from steerpaper.outputs import outputs
from steerpaper.paper.gallery import _page, captions, gallery_pages
from steerpaper.paper.page import SHOWN
from steerpaper.recording import read_on

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ("organism-llama", "organism-gemma2")


def written(kind):
    return {name for about in outputs().values() for name in about[kind]}


def test_every_figure_has_a_caption():
    training = jupytext.read(ROOT / "notebooks" / "00_model_organisms.py")  # not part of the workflow
    of_training = {name for cell in training.cells for name in re.findall(r'save_figure\(.*?"(\w+)"\)', cell.source)}
    assert set(captions()) == written("figures") | of_training
    titles = [about["title"] for about in captions().values()]
    assert len(set(titles)) == len(titles) and all(2 < len(title.split()) < 11 for title in titles)
    assert all(3 < len(about["shows"].split()) < 30 and about["shows"][-1] != "." for about in captions().values())


def test_captions_name_tables_that_are_written():
    assert not {table for about in captions().values() for table in about["tables"]} - written("tables")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_page_shows_every_figure_on_record(preset):
    page = gallery_pages(PRESETS)[f"figures/{preset}.md"]
    shown = re.findall(rf"^!\[.+\]\({preset}/(\w+)\.png\)$", page, re.MULTILINE)
    assert len(shown) > 30 and set(shown) == {path.stem for path in paths.recorded_figures(preset).glob("*.png")}
    drawn = [notebook for notebook, about in outputs().items() if set(about["figures"]) & set(shown)]
    folders = {notebook: "" if preset == read_on(notebook) else f"{preset}/" for notebook in drawn}  # as executed on it
    assert re.findall(r"\(../notebooks/(.+?).ipynb\)", page) == [folders[notebook] + notebook for notebook in drawn]
    assert re.findall("^### (.+)$", page, re.MULTILINE) == [captions()[name]["title"] for name in shown]


def test_what_has_no_figures_has_no_page():
    assert list(gallery_pages(["gemma-2-2b-it"])) == ["figures/README.md"]
    assert gallery_pages([])["figures/README.md"].endswith("None is on record.\n")
    index = gallery_pages(PRESETS)["figures/README.md"]
    assert "organism-gemma2: [figures](organism-gemma2.md), notebooks [01](../notebooks/organism-gemma2/01_" in index
    assert "organism-llama: [figures](organism-llama.md), notebooks [01](../notebooks/01_" in index


def test_without_a_notebook_of_its_own_a_page_leads_to_the_one_that_is_read_first(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    assert "[notebook 03](../notebooks/03_qk_freeze.ipynb)" in _page("organism-gemma2")


def test_every_page_is_of_a_model_on_record():
    committed = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in (ROOT / "figures").glob("*.md")}
    assert committed == gallery_pages(SHOWN), "run python -m steerpaper.paper.page"
