"""What a real model answers to harmful prompts: at most twelve tokens in anything committed."""

import re

import nbformat
import pandas as pd
import pytest

from steerpaper import paths
from steerpaper.behaviour.excerpts import SHOWN, excerpts, is_longer
from steerpaper.copies import long_texts
from steerpaper.presets import PRESETS, get_preset

REAL = get_preset("qwen2.5-coder-0.5b-instruct")
# Columns of committed tables that hold answers, by table.
OURS = ("scorecard", "paper", "second_cases", "two_verdicts", "shift_list")  # tables with sentences of our own
ANSWERS = {"examples": ["none", "dim", "ntp", "po"], "dim_examples": ["base", "−s", "+s"], "freeze_examples": ["text"]}


def too_long(texts) -> list[str]:
    """Those that cannot be an excerpt."""
    return list(filter(is_longer, map(str, texts)))


@pytest.mark.parametrize("unit", [" word", "汉字汉字", "ひらがな", "한국어로"])
def test_longer_is_what_more_tokens_make_in_any_script(unit):
    assert not is_longer(SHOWN * unit) and not is_longer(SHOWN * unit + " …") and is_longer((SHOWN + 1) * unit)
    assert not is_longer("好 word " * (SHOWN // 2)) and is_longer("好 word " * (SHOWN // 2) + "好")


def test_a_real_models_answers_are_cut_and_an_organisms_are_whole(llama):
    ids = list(range(40, 40 + 3 * SHOWN))
    long, short = llama.tokenizer.decode(ids), llama.tokenizer.decode(ids[:SHOWN])
    table = pd.DataFrame({"prompt": ["How?", "How?", "Why?"], "run": [1, 2, 1], "text": [long, short, short]})
    shown = excerpts(llama, table, ["text"], REAL)
    assert shown.text.tolist() == [short + " …", short, short]
    assert shown.prompt.tolist() == ["prompt 1", "prompt 1", "prompt 2"] and shown.run.tolist() == [1, 2, 1]
    assert excerpts(llama, table, ["text"], get_preset("tiny")) is table


def real_results():
    return [folder for folder in sorted((paths.DATA / "results").iterdir()) if not PRESETS[folder.name].shipped]


@pytest.mark.parametrize("name", ANSWERS)
def test_committed_tables_hold_excerpts_only(name):
    organism = pd.read_csv((paths.DATA / "results") / "organism-llama" / f"{name}.csv")
    assert too_long(organism[ANSWERS[name]].stack())  # or this test would not see a long one
    for folder in (folder for folder in real_results() if (folder / f"{name}.csv").is_file()):
        table = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
        assert not too_long(table[[column for column in ANSWERS[name] if column in table]].stack()), folder.name
        assert table.prompt.str.fullmatch(r"prompt \d+").all(), folder.name


def test_no_other_committed_table_of_a_real_model_holds_sentences():
    for folder in real_results():
        for path in sorted(folder.glob("*.csv")):
            if path.stem in ANSWERS:
                continue
            table = pd.read_csv(path, keep_default_na=False)
            texts = table.select_dtypes("object")
            long = [c for c in texts if c != "prompt" and too_long(texts[c])]
            assert not long or path.stem.startswith(OURS), (path.name, long)


def long_outputs(path) -> list[str]:
    """The texts of an executed notebook that cannot be excerpts; none of one that loads no model."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    if not any("load_model(" in cell.source for cell in cells):
        return []
    return [text for cell in cells for output in cell.outputs for text in long_texts(output)]


def test_committed_notebooks_of_a_real_model_hold_excerpts_only():
    assert long_outputs(paths.NOTEBOOKS / "organism-gemma2" / "01_extract_vectors.ipynb")  # or it would not see one
    for folder in real_results():
        tables = [pd.read_csv(path) for name in OURS for path in folder.glob(f"{name}*.csv")]
        ours = {str(text).strip() for table in tables for text in table.to_numpy().ravel()}
        for path in sorted((paths.NOTEBOOKS / folder.name).glob("*.ipynb")):
            assert not set(long_outputs(path)) - ours, f"{folder.name}/{path.name}"


def test_no_whole_committed_notebook_was_executed_on_a_real_model():
    """Their outputs would need the same care; the shipped models' do not."""
    for path in [*paths.NOTEBOOKS.glob("*.ipynb"), *(paths.ROOT / "tests" / "reference").glob("*.ipynb")]:
        cells = nbformat.read(path, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        given = set(re.findall(r'^preset = "([^"]+)"', code, re.MULTILINE))
        assert all(PRESETS[name].shipped for name in given), path.name
