"""The table of departures: a preset like the paper has none, each changed value shows, and words name real code."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from steerpaper.models.model import _FAMILIES
from steerpaper.paper.departures import SHOWN, departures, departures_page
from steerpaper.paper.tables import MODELS
from steerpaper.presets import PRESETS, Preset

ROOT = Path(__file__).resolve().parent.parent
GEMMA = PRESETS["gemma-2-2b-it"]
EQUAL = "as in the paper"
SPARSITY = "new tokens of the sparsity curves, at most"
FOURTH = "of these, for sparsifiers other than the gradient's choice"
# Fields of a preset that are no setting of the paper's, or stand in the table under another one's name.
OURS_ALONE = {
    "revision", "note", "shipped", "concept", "batch_size", "sweep", "n_checked", "n_patched_edges", "circuit_shares",
    "compared_shares", "n_patching_test", "n_random_circuits", "n_random_responses", "more_seeds", "n_freezing",
    "n_by_layer", "n_patching_by_layer", "n_shifted", "second_concept", "n_second", "goal",
}
CHANGED = {
    "dtype": "float32", "prompts": "built-in", "judge": "substring", "first_tokens": ("I", "As"), "n_train": 64,
    "n_validation": 16, "n_test": 50, "max_new_tokens": 1536, "layer_range": (0.2, 0.8), "kl_limit": 0.7,
    "coefficients": (1.0, 2.0), "n_patching": 28, "n_judged": 30, "n_pairs": 40, "n_validation_pairs": 12,
    "pair_batch_sizes": (6,), "learning_rates": (0.1, 0.4), "phis": (0.2,), "training_seeds": (42,), "epochs": 3,
    "training_tokens": 32, "training_coefficients": "sampled", "learned_norm": "dim", "n_sparsity": (24, 24, 24),
}


def of(preset):
    return departures([preset]).set_index("setting")[preset.name]


def departing(preset):
    cells = of(preset)
    return cells[cells != EQUAL]


@pytest.mark.parametrize("name", MODELS)
def test_the_paper_s_presets_depart_in_what_the_sparsity_curves_are_measured_on_alone(name):
    assert departing(PRESETS[name]).to_dict() == {FOURTH: "50, 25, 79", SPARSITY: str(512 // 3)}


def test_a_preset_equal_to_the_paper_shows_none():
    """But for what no preset can say: three times the length makes the sparsity curves' the paper's, four times the
    prompts those of the other sparsifiers."""
    larger = replace(GEMMA, max_new_tokens=3 * 512, n_sparsity=(800, 400, 1252))
    assert departing(larger).to_dict() == {
        "new tokens, at most": "1536",
        "harmless, harmful and second harmful prompts of the sparsity curves": "800, 400, 1252"}


@pytest.mark.parametrize("field", CHANGED)
def test_a_changed_value_shows(field):
    before, after = departing(GEMMA), departing(replace(GEMMA, **{field: CHANGED[field]}))
    new = after.drop(before.index, errors="ignore")
    values = CHANGED[field] if isinstance(CHANGED[field], tuple) else (CHANGED[field],)
    shown = ", ".join(value if isinstance(value, str) else f"{value:g}" for value in values)
    if field == "n_sparsity":
        assert new.tolist() == [shown] and after[FOURTH] == "6, 6, 6"
    elif field == "prompts":  # and with it the second harmful set
        assert new.tolist() == ["built-in", "borderline"]
    else:
        assert new.tolist() == [shown]


def test_a_layer_of_one_s_own_shows_and_a_selected_one_shows_its_extra_step():
    assert departing(replace(GEMMA, layer=12, position=-4))["layer and position"] == "12, -4"  # Llama's, not Gemma's
    selected = departing(replace(GEMMA, layer=None, position=None, n_candidates=5)).drop([FOURTH, SPARSITY])
    assert selected.to_dict() == {"candidates that answers are generated from": "5"}
    assert departing(replace(GEMMA, name="other", model="a/b"))["model"] == "a/b"


def test_every_field_is_in_the_table_or_is_ours_alone():
    at_the_model = {"name", "model", "layer", "position", "n_candidates"}
    assert {field.name for field in fields(Preset)} == OURS_ALONE | set(CHANGED) | at_the_model


def test_the_paper_s_column_by_hand():
    table = departures([]).set_index("setting").paper
    assert table["limit on KL"] == "0.1" and table["new tokens, at most"] == "512" and table["|α| tried"] == "1"
    assert table["pairs per training step"] == "6, 12" and table["learning rates"] == "0.01, 0.04"
    assert table["steps T of attribution"] == "10" and table["φ of PO"] == "0.02, 1e-05"
    assert table["prompts per class for contrastive pairs"] == "256" and table["test prompts per class"] == "100"
    assert table["harmless, harmful and second harmful prompts of the sparsity curves"] == "200, 100, 313"
    assert table["training prompts per class"] == "128" and table["response tokens learned from"] == "64"


def test_measured_presets_by_hand():
    gemma2, coder = (of(PRESETS[name]) for name in ("organism-gemma2", "qwen2.5-coder-0.5b-instruct"))
    assert gemma2["limit on KL"] == "0.7" and of(PRESETS["organism-llama"])["limit on KL"] == "0.4"
    assert gemma2["model"] == "`data/organisms/gemma2`" and gemma2["second harmful test set"] == "borderline"
    assert coder["model"] == "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
    assert coder[["test prompts per class", "learning rates"]].tolist() == [EQUAL, EQUAL]
    assert coder["new tokens of the sparsity curves, at most"] == str(64 // 3) and coder[FOURTH] == "8, 8, 8"


def test_the_page_marks_and_counts():
    page = departures_page()
    head, _, *rows = [line for line in page.splitlines() if line.startswith("|")]
    assert [name.strip() for name in head.split("|")[4:-1]] == list(SHOWN)
    cells = [[cell.strip() for cell in row.replace("\\|", "").split("|")[4:-1]] for row in rows]
    *settings, last = cells
    assert all(cell == EQUAL or re.fullmatch(r"\*\*[^*]+\*\*", cell) for row in settings for cell in row)
    assert last == [str(sum(row[i] != EQUAL for row in settings)) for i in range(len(SHOWN))] and last[:2] == ["2", "2"]
    assert f"settings that depart, of {len(settings)} " in rows[-1] and str(ROOT) not in page


def test_what_is_said_in_words_names_code_that_is_there():
    """Every bit of code in a paragraph stands in one of the files that the paragraph links."""
    words = departures_page().partition("## What is no number")[2]
    paragraphs = re.split(r"\n\* ", words)[1:]
    assert len(paragraphs) >= 10
    for paragraph in paragraphs:
        links = re.findall(r"\]\(\.\./([^)]+)\)", paragraph)
        text = "".join((ROOT / link).with_suffix(".py" if link.endswith(".ipynb") else Path(link).suffix).read_text()
                       for link in links)
        assert links and not [code for code in re.findall(r"`([^`]+)`", paragraph) if code not in text], paragraph


def test_what_the_words_and_the_table_take_from_elsewhere():
    fifth = (ROOT / "notebooks" / "05_sparsification.py").read_text()
    assert "settings.max_new_tokens // 3" in fifth and "one_in = 4" in fifth
    assert {name for name, family in _FAMILIES.items() if family.implementation == "eager"} == {"gemma2"}
    second = (ROOT / "notebooks" / "02_patching_circuits.py").read_text()
    assert '"train": settings.n_patching,' in second and "n=settings.n_judged)" in second


def test_what_is_committed_is_current():
    page = (ROOT / "docs" / "departures.md").read_text(encoding="utf-8")
    assert page == departures_page(), "run python -m steerpaper.paper.page"
