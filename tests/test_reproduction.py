"""Computed here beside on record: what counts as the same, and what is said of what does not."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imsave
from safetensors.torch import save_file

import steerpaper.outputs
from steerpaper import paths, presets, reproduction
from steerpaper.artifacts import load_table, load_tensors, save_table, save_tensors
from steerpaper.figures import save_figure
from steerpaper.outputs import outputs, writing
from steerpaper.reproduction import RELATIVE, SMALL, Comparison, compare_pictures, compare_tables, main

TABLE = pd.DataFrame({
    "set": ["a", "b", "c"], "n": [3, 4, 5], "score": [0.5, -2.0, 0.001],
    "words": ["yes", "0.84 to 0.91, weakest dim with 0.84", "holds"],
})


def changed(column, row, value):
    table = TABLE.copy()
    table[column] = table[column].astype(object if isinstance(value, str) else table[column].dtype)
    table.loc[row, column] = value
    return table


def test_a_table_is_as_itself_in_any_order_of_its_rows():
    assert compare_tables("t.csv", TABLE, TABLE.copy()) == []
    assert compare_tables("t.csv", TABLE, TABLE[::-1].reset_index(drop=True)) == []


def test_rows_that_labels_do_not_tell_apart_keep_their_order():
    table = pd.DataFrame({"set": ["a", "a"], "score": [1.0, 2.0]})
    assert len([d for d in compare_tables("t.csv", table, table[::-1].reset_index(drop=True)) if not d.within]) == 2


def test_another_processor_s_digits_are_within_tolerance_and_the_largest_is_told():
    other = changed("score", 0, 0.50001)
    other.loc[1, "score"] = -2.00001
    (found,) = compare_tables("t.csv", TABLE, other)
    assert found.within and found.size == pytest.approx(0.00001 / (0.5 + SMALL / RELATIVE * 2.0), rel=1e-3)
    assert str(found) == "t.csv, set 'a', score: 0.5 on record, 0.50001 here"


@pytest.mark.parametrize("change", [1e-6, 0.9e-3, 1.1e-3, 0.1])
@pytest.mark.parametrize("row", range(3))
def test_the_tolerance_is_numpy_s(row, change):
    other = changed("score", row, TABLE.score[row] * (1 + change))
    close = np.isclose(other.score[row], TABLE.score[row], rtol=RELATIVE, atol=SMALL * 2.0)
    assert [d.within for d in compare_tables("t.csv", TABLE, other)] == [close]


@pytest.mark.parametrize("column, row, value", [
    ("score", 0, 0.5 * (1 + 1.1 * RELATIVE)), ("score", 2, 0.0), ("score", 1, 2.0), ("score", 1, np.nan),
    ("score", 1, np.inf), ("n", 2, 6), ("set", 0, "d"), ("words", 0, "no"), ("words", 0, None),
    ("words", 1, "0.84 to 0.93, weakest dim with 0.84"), ("words", 1, "0.84 to 0.91, weakest ntp with 0.84"),
])
def test_more_than_that_is_beyond(column, row, value):
    found = compare_tables("t.csv", TABLE, changed(column, row, value))
    assert [d.within for d in found] == [False] and found[0].where.endswith(f", {column}")
    assert pd.isna(found[0].computed) if pd.isna(value) else found[0].computed == value


@pytest.mark.parametrize("recorded, computed", [(["yes", "no"], [None, None]), (["not run", "1.5"], [None, "1.5"])])
def test_text_that_is_lost_is_no_missing_number(recorded, computed):
    tables = [pd.DataFrame({"words": words}) for words in (recorded, computed)]
    tables[1]["words"] = pd.to_numeric(tables[1].words)
    assert any(not d.within for d in compare_tables("t.csv", *tables))


def test_a_small_number_counts_beside_those_of_its_quantity():
    table = pd.DataFrame({"quantity": ["edges", "share"], "value": [13500.0, 0.03]})
    assert [d.within for d in compare_tables("t.csv", table, table.assign(value=[13500.0, 0.02]))] == [False]
    assert [d.within for d in compare_tables("t.csv", table, table.assign(value=[13500.01, 0.03]))] == [True]


def test_a_row_is_told_in_plain_words():
    table = pd.DataFrame({"rescaled": [True, False], "n": [1, 1], "set": ["a" * 50, "b"], "asr": [0.5, 0.25]})
    (found,) = compare_tables("t.csv", table, table.assign(asr=[0.5, 0.75]))
    assert found.where == "t.csv, rescaled False, asr"
    (found,) = compare_tables("t.csv", table.assign(rescaled=True), table.assign(rescaled=True, asr=[0.75, 0.25]))
    assert found.where == f"t.csv, rescaled True, n 1, set '{'a' * 12}...{'a' * 13}', asr"


def test_thresholds_are_measured():
    """Those of a target sparsity are."""
    table = pd.DataFrame({"threshold": [0.902109, 1.5], "n": [1, 2]})
    assert [d.within for d in compare_tables("t.csv", table, table.assign(threshold=[0.90211, 1.5]))] == [True]


def test_settings_are_exact():
    table = pd.DataFrame({"phi": [0.2, 1e-5], "loss": [1.0, 2.0]})
    assert [d.within for d in compare_tables("t.csv", table, table.assign(phi=[0.2, 1.0001e-5]))] == [False]


@pytest.mark.parametrize("old, new, same", [
    ("weakest dim with 0.84", "weakest dim with 0.85", True), ("weakest dim with 0.84", "weakest dim with 0.86", False),
    ("0.877213", "0.877301", True), ("0.877213", "0.879213", False), ("below 1.2e-5", "below 1.3e-5", True),
    ("12 of 24 edges", "13 of 24 edges", False), ("24", "25", False),
    ("llama-3.2-3b", "llama-3.1-3b", False), ("torch-2.13.0", "torch-2.14.0", False), ("10000.5 (a)", "10009.5 (a)", False),
])
def test_numbers_within_text_may_differ_in_their_last_digit(old, new, same):
    tables = [pd.DataFrame({"words": [text]}) for text in (old, new)]
    assert (compare_tables("t.csv", *tables) == []) is same


def test_whole_numbers_of_a_measured_column_are_measured():
    recorded, computed = pd.DataFrame({"share": [1, 0]}), pd.DataFrame({"share": [0.999999, 0.0]})
    assert [d.within for d in compare_tables("t.csv", recorded, computed)] == [True]


def test_other_rows_or_columns_are_one_difference():
    (rows,) = compare_tables("t.csv", TABLE, TABLE[:2])
    assert str(rows) == "t.csv, rows: 3 on record, 2 here" and not rows.within
    (columns,) = compare_tables("t.csv", TABLE, TABLE.drop(columns="n"))
    assert columns.where == "t.csv, columns" and not columns.within


# -- an answer that turns ----------------------------------------------------------------------------------

RATES = pd.DataFrame({"prompts": [f"set {i:03}" for i in range(400)], "n": 25, "asr": 0.08, "asr_low": 0.02, "asr_high": 0.25})
DROPS = pd.DataFrame({"method": ["dim", "po"], "drop_points": [0.2, 0.4], "low": [0.1, 0.3], "high": [0.3, 0.5],
                      "share": [0.5, 0.25]})


def turned(rows, by=0.04) -> pd.DataFrame:
    return RATES.assign(asr=RATES.asr.where(~RATES.index.isin(rows), 0.08 - by),
                        asr_low=RATES.asr_low.where(~RATES.index.isin(rows), 0.01))


def both(rates, drops=DROPS, verdicts=(), picture=()) -> Comparison:
    found = Comparison("tiny", rates=len(RATES), verdicts=list(verdicts))
    found.differences = compare_tables("r.csv", RATES, rates) + compare_tables("d.csv", DROPS, drops) + list(picture)
    return found


def test_one_answer_of_a_rate_may_turn_and_is_told_with_what_follows():
    followed = DROPS.assign(drop_points=[0.29, 0.4], high=[0.38, 0.5])
    found = both(turned([7]), followed)
    assert not found.beyond and [str(d) for d in found.turned] == ["r.csv, prompts 'set 007', asr: 0.08 on record, 0.04 here"]
    assert "one answer in 1 of 400 rates and 3 numbers and pictures that follow; else no difference" in str(found)
    assert "r.csv, prompts 'set 007', asr: 0.08 on record, 0.04 here" in str(found)


def test_a_number_among_words_follows_as_others_do():
    found = Comparison("tiny", rates=400, differences=compare_tables("r.csv", RATES, turned([7])))
    words = DROPS.assign(drop_points=["0.2", "not run"])
    for value, beyond in (("0.29", 0), ("0.31", 1), ("not run", 1), ("0.29 (a)", 1)):
        own = compare_tables("w.csv", words, words.assign(drop_points=[value, "not run"]))
        assert len(replace(found, differences=found.differences + own).beyond) == beyond


def test_nothing_may_follow_where_no_answer_has_turned():
    found = both(RATES, DROPS.assign(drop_points=[0.21, 0.4]))
    assert [d.where for d in found.beyond] == ["d.csv, method 'dim', drop_points"] and not found.turned


@pytest.mark.parametrize("rates", [turned([7, 8]), turned([7], by=0.08), turned([7], by=0.03)])
def test_more_answers_than_that_or_a_part_of_one_are_beyond(rates):
    assert "asr" in {d.where.rpartition(", ")[2] for d in both(rates).beyond}


@pytest.mark.parametrize("column, value", [
    ("drop_points", 0.31), ("low", 0.21), ("high", 0.41), ("share", 0.51), ("drop_points", np.nan)])
def test_what_has_no_interval_or_leaves_half_of_it_does_not_follow(column, value):
    drops = DROPS.copy()
    drops.loc[0, column] = value
    assert [d.where for d in both(turned([7]), drops).beyond] == [f"d.csv, method 'dim', {column}"]


@pytest.mark.parametrize("column", ["n", "prompts"])
def test_counts_and_labels_do_not_follow(column):
    rates = turned([7])
    rates.loc[7, column] = {"n": 24, "prompts": "another"}[column]
    assert both(rates).beyond


def test_pictures_follow_up_to_a_limit(tmp_path):
    pixels = np.zeros((50, 50, 3))
    imsave(tmp_path / "a.png", pixels)
    found = {}
    for name, height in (("small", 3 / 255), ("large", 6 / 255)):
        imsave(tmp_path / f"{name}.png", pixels * 0 + height)
        (found[name],) = compare_pictures(f"{name}.png", tmp_path / "a.png", tmp_path / f"{name}.png")
    assert [d.follows for d in found.values()] == [True, False]
    assert not both(turned([7]), picture=[found["small"]]).beyond
    assert both(turned([7]), picture=[found["large"]]).beyond == [found["large"]]
    assert both(RATES, picture=[found["small"]]).beyond == [found["small"]]


# -- a whole preset ----------------------------------------------------------------------------------------

def draw(height: float) -> Figure:
    figure = Figure(figsize=(2, 2))
    figure.subplots().bar([0, 1], [1.0, height])
    return figure


@pytest.fixture
def preset(tmp_path, monkeypatch):
    """The preset "tiny" with one table, one scorecard and one figure, computed and on record, in a folder of its own."""
    (tmp_path / "model").mkdir()
    save_file({"w": torch.arange(3.0)}, tmp_path / "model" / "model.safetensors")
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(presets.PRESETS["tiny"], model=str(tmp_path / "model")))
    for name, place in (("ROOT", ""), ("DATA", "data"), ("BUILD", "build")):
        monkeypatch.setattr(paths, name, tmp_path / place)
    written = {"01_x": {"after": [], "figures": ["bars"], "tables": ["scores", "scorecard_claims"], "tensors": ["a"]}}
    monkeypatch.setattr("steerpaper.outputs.outputs", lambda: written)
    card = pd.DataFrame({"claim": ["small", "shared"], "verdict": ["holds", "holds in part"]})

    def compute(table=TABLE, card=card, height=0.5):
        save_table("tiny", "scores", table)
        save_table("tiny", "scorecard_claims", card)
        save_figure(draw(height), "tiny", "bars")
        save_tensors("tiny", "a", {"scores": torch.tensor(table.score.to_numpy())}, {"seed": 0})

    compute()
    return compute


def committed(tmp_path) -> dict:
    files = [file for folder in ("data", "figures") for file in (tmp_path / folder).rglob("*") if file.is_file()]
    return {str(file.relative_to(tmp_path)): file.read_bytes() for file in files}


def test_what_has_no_record_is_said_to_have_none(preset, tmp_path, capsys):
    assert main("compare", "tiny") == 0 and not committed(tmp_path)
    assert f"tiny: computed, in {tmp_path}/build/tiny; nothing is on record" in capsys.readouterr().out
    assert main("record", "tiny") == 0
    assert set(committed(tmp_path)) == {
        *(f"data/results/tiny/{name}" for name in ("manifest.json", "scorecard_claims.csv", "scores.csv", "a.safetensors")),
        "figures/tiny/bars.png", "figures/tiny/bars.svg"}
    assert "tiny: now on record in data/results/tiny and figures/tiny" in capsys.readouterr().out
    assert main("compare", "tiny") == 0
    said = capsys.readouterr().out
    assert "tiny: 2 tables (6 numbers) and 1 figures are as on record, no difference; no verdict changed" in said
    assert reproduction.TOLERANCE in said


@pytest.mark.parametrize("gone", ["results/scores.csv", "artifacts/a.safetensors", "figures/bars.svg"])
def test_a_record_is_replaced_as_a_whole_or_not_at_all(preset, tmp_path, capsys, gone):
    main("record", "tiny")
    before = committed(tmp_path)
    preset(table=changed("score", 1, -2.5), height=0.8)
    (paths.BUILD / "tiny" / gone).unlink()
    assert main("record", "tiny") == 1 and committed(tmp_path) == before
    assert gone.partition("/")[2] in capsys.readouterr().out


def test_a_record_grows_notebook_by_notebook_and_loses_none(preset, tmp_path, monkeypatch, capsys):
    more = {"after": ["01_x"], "figures": [], "tables": ["more"], "tensors": []}
    written = steerpaper.outputs.outputs() | {"02_y": more, "03_z": dict(after=[], figures=[], tables=[], tensors=[])}
    monkeypatch.setattr("steerpaper.outputs.outputs", lambda: written)
    assert main("record", "tiny") == 0 and "figures/tiny; not run here: 02_y\n" in capsys.readouterr().out
    assert main("compare", "tiny") == 0 and "tiny: 2 tables" in capsys.readouterr().out
    save_table("tiny", "more", TABLE)
    assert main("record", "tiny") == 0 and "not run here" not in capsys.readouterr().out
    before = committed(tmp_path)
    assert "data/results/tiny/more.csv" in before
    (paths.results("tiny") / "more.csv").unlink()
    assert main("record", "tiny") == 1 and committed(tmp_path) == before
    assert "more.csv is missing: run notebook 02_y" in capsys.readouterr().out


def test_what_is_on_record_is_taken_for_computed_here(preset, tmp_path, capsys):
    assert main("restore", "tiny") == 1 and "tiny: nothing is on record" in capsys.readouterr().out
    main("record", "tiny")
    kept = committed(tmp_path)
    shutil.rmtree(paths.BUILD)
    assert main("restore", "tiny") == 0 and "tiny: 01_x as on record, in" in capsys.readouterr().out
    pd.testing.assert_frame_equal(load_table("tiny", "scores"), TABLE)
    assert load_tensors("tiny", "a")[0]["scores"].tolist() == TABLE.score.tolist()
    assert main("compare", "tiny") == 0 and main("record", "tiny") == 0 and committed(tmp_path) == kept
    capsys.readouterr()
    (paths.recorded_results("tiny") / "a.safetensors").unlink()
    assert main("restore", "tiny") == 0
    assert "; their tensors are not on record, so run 01_x before what builds upon them" in capsys.readouterr().out
    path = paths.recorded_results("tiny") / "scores.csv"
    path.write_text(path.read_text().replace("0.5", "0.7"))
    assert main("restore", "tiny") == 1 and "scores.csv is not what notebook 01_x wrote" in capsys.readouterr().out


def test_what_was_changed_by_hand_does_not_go_on_record(preset, tmp_path, capsys):
    path = paths.results("tiny") / "scores.csv"
    path.write_text(path.read_text().replace("0.5", "0.7"))
    assert main("record", "tiny") == 1 and not committed(tmp_path)
    assert "build/tiny/results/scores.csv is not what notebook 01_x wrote" in capsys.readouterr().out


def test_within_tolerance_the_record_stays_as_it_is(preset, tmp_path, capsys):
    main("record", "tiny")
    before = committed(tmp_path)
    preset(table=changed("score", 0, 0.50001), height=0.5001)
    assert (paths.results("tiny") / "scores.csv").read_bytes() != before["data/results/tiny/scores.csv"]
    assert main("compare", "tiny") == 0
    assert "largest difference 1.9e-05, scores.csv, set 'a', score: 0.5 on record, 0.50001 here" in capsys.readouterr().out
    assert committed(tmp_path) == before


def test_beyond_it_table_row_and_values_are_told_and_the_record_stays(preset, tmp_path, capsys):
    main("record", "tiny")
    before = committed(tmp_path)
    other = pd.DataFrame({"claim": ["small", "shared"], "verdict": ["does not hold", "holds in part"]})
    preset(table=changed("score", 1, -2.5), card=other, height=0.8)
    assert main("compare", "tiny") == 1
    said = capsys.readouterr().out
    assert "3 differences beyond tolerance; verdicts changed: small from holds to does not hold" in said
    assert "  scores.csv, set 'b', score: -2.0 on record, -2.5 here" in said
    assert "bars.png: the picture on record, one with RMS" in said
    assert "`make record PRESETS=...` puts it on record instead" in said
    assert committed(tmp_path) == before
    assert main("record", "tiny") == 0 and main("compare", "tiny") == 0
    assert committed(tmp_path) != before


def test_a_run_with_an_answer_that_turned_passes_and_says_so(preset, capsys):
    preset(table=RATES.assign(score=1.0))
    main("record", "tiny")
    preset(table=turned([7]).assign(score=1.0))
    assert main("compare", "tiny") == 0
    said = capsys.readouterr().out
    assert "tiny: 2 tables (2,000 numbers) and 1 figures are as on record, but for one answer in 1 of 400 rates" in said
    preset(table=turned([7, 8]).assign(score=1.0))
    assert main("compare", "tiny") == 1 and "4 differences beyond tolerance" in capsys.readouterr().out


def test_a_record_that_was_changed_by_hand_is_refused_by_name(preset, tmp_path, capsys):
    main("record", "tiny")
    path = paths.recorded_results("tiny") / "scores.csv"
    path.write_text(path.read_text().replace("0.5", "0.7"))
    assert main("compare", "tiny") == 1
    assert "tiny: data/results/tiny/scores.csv is not what notebook 01_x wrote" in capsys.readouterr().out


def test_what_no_notebook_writes_any_more_leaves_the_record(preset, tmp_path):
    main("record", "tiny")
    (paths.recorded_results("tiny") / "old.csv").write_text("n\n1\n")
    main("record", "tiny")
    assert not (paths.recorded_results("tiny") / "old.csv").exists()


def test_pictures_of_other_sizes_differ(preset, tmp_path):
    drawn = paths.figures("tiny") / "bars.png"
    wide = tmp_path / "wide.png"
    Figure(figsize=(3, 2)).savefig(wide)
    assert compare_pictures("bars.png", drawn, drawn) == []
    assert not compare_pictures("bars.png", drawn, wide)[0].within


def test_every_notebook_and_what_it_writes_is_declared_once():
    names = [name for about in outputs().values() for kind in ("figures", "tables", "tensors") for name in about[kind]]
    for kind in ("figures", "tables", "tensors"):
        own = [name for about in outputs().values() for name in about[kind]]
        assert len(own) == len(set(own)), kind
    assert all(re.fullmatch(r"\w+", name) for name in names)
    assert names and all(set(about["after"]) <= set(outputs()) for about in outputs().values())


def test_the_shipped_records_are_complete():
    for preset in ("organism-llama", "organism-gemma2"):
        for about in writing(preset).values():
            assert all((paths.recorded_results(preset) / f"{name}.csv").is_file() for name in about["tables"])
            assert all((paths.recorded_figures(preset) / f"{name}.png").is_file() for name in about["figures"])


def test_of_a_preset_with_a_goal_that_notebook_alone_goes_on_record(preset, tmp_path, monkeypatch):
    more = {"after": ["01_x"], "figures": [], "tables": ["goal"], "tensors": []}
    written = steerpaper.outputs.outputs() | {"02_y": more, "03_z": more | {"tables": ["further"]}}
    monkeypatch.setattr("steerpaper.outputs.outputs", lambda: written)
    assert list(writing("tiny")) == steerpaper.outputs.needed("tiny") == ["01_x", "02_y", "03_z"]
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(presets.PRESETS["tiny"], goal="02_y"))
    assert list(writing("tiny")) == steerpaper.outputs.needed("tiny") == ["01_x", "02_y"]
    save_table("tiny", "goal", TABLE)
    assert main("record", "tiny") == 0 and main("compare", "tiny") == 0
    assert [path.name for path in (tmp_path / "data/results/tiny").glob("*.csv")] == ["goal.csv"]
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(presets.PRESETS["tiny"], goal="02_yy"))
    with pytest.raises(ValueError, match=r"goal of preset 'tiny' '02_yy' \(did you mean '02_y'\?\)"):
        writing("tiny")


def test_a_notebook_that_may_end_has_all_of_what_it_writes_or_nothing(preset, tmp_path, monkeypatch, capsys):
    """On a preset without the field nothing is looked for; on one with it, what was found may be that there is nothing."""
    more = {"after": [], "only": "second_concept", "figures": [], "tables": ["second_a", "second_b"], "tensors": []}
    written = steerpaper.outputs.outputs() | {"02_y": more}
    monkeypatch.setattr("steerpaper.outputs.outputs", lambda: written)
    assert list(writing("tiny")) == ["01_x", "02_y"]
    with monkeypatch.context() as patch:
        patch.setitem(presets.PRESETS, "tiny", replace(presets.PRESETS["tiny"], second_concept=None))
        assert list(writing("tiny")) == ["01_x"]
    for command in ("record", "compare"):
        assert main(command, "tiny") == 0  # it has ended with what it found
    save_table("tiny", "second_a", TABLE)
    assert main("record", "tiny") == 1 and "second_b.csv is missing: run notebook 02_y" in capsys.readouterr().out
    save_table("tiny", "second_b", TABLE)
    assert main("record", "tiny") == 0 and (tmp_path / "data/results/tiny/second_b.csv").is_file()
    for name in ("second_a", "second_b"):
        (paths.results("tiny") / f"{name}.csv").unlink()
    assert main("compare", "tiny") == 1 and "second_a.csv is missing" in capsys.readouterr().out
