"""Claims, verdicts, the paper's numbers and arithmetic, and the pages made of them."""

import itertools
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from steerpaper import paths
from steerpaper.artifacts import load_table, save_table
from steerpaper.concepts import REFUSAL
from steerpaper.paper import beside, compared, tables
from steerpaper.paper.arithmetic import paper_arithmetic
from steerpaper.paper.beside import reported_numbers
from steerpaper.paper.claims import VERDICTS, Check, Claim, Rule, cases, claims, entries, summary, verdict
from steerpaper.paper.compared import measured_table, reported_table
from steerpaper.paper.findings import findings, side_by_side
from steerpaper.paper.page import SHOWN, generated_pages, readme_findings, results_page, with_findings, with_running_times
from steerpaper.paper.tables import (
    TEST_SETS, average_drop, drop_contrasts, of_steering, paper_tables, paper_text, reported, sparsity_kept,
)
from steerpaper.paper.verdicts import as_reported, scorecard

ROOT = Path(__file__).resolve().parent.parent
PAPER = ROOT / "data" / "paper"
METHODS = ("dim", "ntp", "po")
PAIRS = (("dim", "ntp"), ("dim", "po"), ("ntp", "po"))
CLASSES = ("harmful", "harmless")


def asr_table(columns, rows):
    """ASR rows with an interval of 0.05 to either side."""
    table = pd.DataFrame(rows, columns=[*columns, "asr"])
    return table.assign(asr_low=table.asr - 0.05, asr_high=table.asr + 0.05)


def hand_made() -> dict[str, pd.DataFrame]:
    """Tables of a model on which every claim holds, as notebooks 01 to 05 write them, smaller."""
    steered = {"harmful": 0.9, "harmless": 0.0}
    asr = [("none", p, 1 - steered[p] - 0.1 * (p == "harmful")) for p in CLASSES]
    asr += [(m, p, steered[p]) for m in METHODS for p in CLASSES]
    frozen = {"none": 0, "qk": 0.05, "mlp": 0.3, "svv": 0.5, "ov": 0.7}
    sign = {"harmful": -1, "harmless": 1}
    ablations = [("none", *row) for row in asr if row[0] == "none"]
    ablations += [(m, f, p, steered[p] + sign[p] * d) for m in METHODS for f, d in frozen.items() for p in CLASSES]
    reach = {"gradient": 0.95, "indirect_effect": 0.95, "bottom_k": 0.8, "dropout": 0.4}
    sparsity = [
        (m, s, True, t, level, p, 1.0 * (p == "harmless"), steered[p] if level <= reach[s] else 0.5)
        for m in METHODS for s in reach for t, level in ((0, 0.0), (0.5, 0.4), (1, 0.8), (2, 0.95), (2.5, 0.99))
        for p in CLASSES
    ]
    kept = {"gradient": (0.95, 0.95), "indirect_effect": (0.95, 0.95), "bottom_k": (0.8, 0.8), "dropout": (0.4, 0.4)}
    circuits = [("circuit", 0.9), ("complement", 0.01)]
    random = {"same size": 0.04, "twice the size": 0.05, "same kinds": 0.06}
    types = {"from_steering": 10.0, "from_attention_head": 70.0, "from_mlp": 20.0, "into_query": 5.0, "into_key": 1.0,
             "into_value": 34.0, "into_mlp": 45.0, "into_logits": 15.0}
    every = types | {"from_attention_head": 60.0, "into_query": 50.0, "into_key": 25.0}
    return {
        "table2_asr": asr_table(["method", "prompts"], asr).assign(clean_share_of_base=0.9),
        "random_control": pd.DataFrame([(m, draw, p, sign * 0.02, sign * 0.9) for m in METHODS for draw in range(3)
                                        for p, sign in zip(CLASSES, (1, -1))],
                                       columns=["as_long_as", "draw", "prompts", "asr_change", "method_change"]),
        "cosines": pd.DataFrame([(*pair, 0.3, 0.2, 0.4) for pair in PAIRS],
                                columns=["method_a", "method_b", "cosine", "low", "high"]),
        "learned_grid": pd.DataFrame({"method": ["ntp", "po"], "batch_size": [12, 6], "learning_rate": [0.01, 0.01],
                                      "seed": [5, 42], "phi": [np.nan, 1e-5]}),
        "learned_curves": pd.DataFrame({"method": ["ntp"] * 4, "epoch": range(4), "validation_loss": [3.0, 2, 1, 1]}),
        "table3_patching_data": pd.DataFrame(
            [(m, s, p, r, 40, 400) for m in METHODS for s in ("train", "test") for p in CLASSES
             for r in ("steered", "base")],
            columns=["method", "split", "prompts", "response_from", "responses", "positions"]),
        "minimum_faithful": pd.DataFrame([(name, p, value, value - 0.02, value + 0.02)
                                          for name, value in circuits for p in ("both", *CLASSES)],
                                         columns=["circuit", "prompts", "faithfulness", "low", "high"]),
        "random_circuits": pd.DataFrame([(circuit, control, p, value, 0.01, 0.4, 0.9) for circuit in ("minimum-faithful", "strongest")
                                         for control, value in random.items() for p in CLASSES],
                                        columns=["circuit", "control", "prompts", "high", "reaching", "median", "own"]),
        "fig3_minimum_faithful": pd.DataFrame({"method": METHODS, "n_edges": (100, 110, 120),
                                               "share": (0.1, 0.11, 0.12)}),
        "fig3_interchange": pd.DataFrame(
            [(a, b, p, 0.9 if b in METHODS else 0.3, 0.88, 0.92) for a in METHODS for b in (*METHODS, "random vector")
             for p in ("both", *CLASSES)],
            columns=["vector", "circuit", "prompts", "faithfulness", "low", "high"]),
        "random_vector_circuits": pd.DataFrame(
            [(m, seed, p, 0.3) for m in METHODS for seed in (0, 1) for p in CLASSES],
            columns=["method", "seed", "prompts", "other_share"]),
        "fig19_single_sets": pd.DataFrame(
            [(r, p, share, f) for r, f in (("all four sets", 0.9), ("one token only", 0.7)) for p in CLASSES
             for share in (0.1, 0.3)], columns=["ranked_on", "prompts", "share", "faithfulness"]),
        "effect_shares": pd.DataFrame([("harmful", "base", 0.9), ("together", None, 0.4)],
                                      columns=["prompts", "response_from", "largest"]),
        "fig4_overlap": pd.DataFrame([(*pair, share, 0.95, share) for pair in PAIRS for share in (0.1, 0.5, 1.0)],
                                     columns=["method_a", "method_b", "share", "overlap", "chance"]),
        "table5_8_edge_types": pd.DataFrame([{"method": "dim", "edges": "all edges", **every}] + [
            {"method": m, "edges": e, **types} for m in METHODS for e in ("circuit", "top")]),
        "table9_positions": pd.DataFrame({"metric": ["logit difference", "KL, threshold 0", "KL, threshold 1",
                                                     "KL, threshold 5"], "positions": [250, 1000, 200, 10]}),
        "table1_ablations": asr_table(["method", "frozen", "prompts"], ablations),
        "table1_average_drop": pd.DataFrame([(m, f, 100 * d, 100 * d - 1, 100 * d + 1) for m in METHODS
                                             for f, d in frozen.items() if f != "none"],
                                            columns=["method", "frozen", "drop_points", "drop_points_low",
                                                     "drop_points_high"]),
        "freeze_on_logits": pd.DataFrame([(m, f, p, share, share - 0.05, share + 0.05) for m in METHODS
                                          for f, share in (("qk", 0.05), ("ov", 0.7), ("mlp-total", 0.9))
                                          for p in ("both", *CLASSES)],
                                         columns=["method", "frozen", "prompts", "undone", "low", "high"]),
        "svv_preference": pd.DataFrame([(s, m, *row) for s in ("refusal", "harm") for m in METHODS for row in
                                        (("SV", 0.8 if m == "po" else 0.6, 0.3, 0.7),
                                         ("L5H1", 0.8, 0.3, 0.7), ("SUM", 0.9, 0.3, 0.7),
                                         ("MLP 5", 0.1, np.nan, np.nan))],
                                       columns=["scale", "method", "vector", "preference", "chance_low",
                                                "chance_high"]),
        "svv_tokens": pd.DataFrame([(m, v, r, "a") for m in METHODS for v in ("SUM", "SV") for r in (1, 2, 3)],
                                   columns=["method", "vector", "rank_shown", "token"]),
        "table10_11_sparsity": asr_table(["method", "sparsifier", "rescaled", "threshold", "sparsity", "prompts",
                                          "unsteered"], sparsity),
        "table10_11_second_set": asr_table(
            ["method", "sparsifier", "rescaled", "threshold", "sparsity", "prompts", "unsteered"],
            [(*row[:5], "borderline", *row[6:]) for row in sparsity if row[5] == "harmful"]).assign(n=20),
        "sparsity_kept": pd.DataFrame(
            [(m, s, rescaled, p, *[kept[s][rescaled]] * 2) for m in METHODS for s in kept for rescaled in (True, False)
             for p in ("harmful", "all three")],
            columns=["method", "sparsifier", "rescaled", "prompts", "sparsity", "sparsity_same_prompts"]),
        "sparse_test": pd.DataFrame([(p, m, v, clean) for p in CLASSES for m in METHODS
                                     for v, clean in (("dense", 0.9), ("sparse", 0.85))],
                                    columns=["prompts", "method", "vector", "clean"]),
        "support_control": pd.DataFrame([("on the path", v, m, p, value) for m in METHODS for v, *values in
                                         (("vector", 0.9, 0.0), ("signs", 0.1, 0.9), ("gradient", 0.4, 0.6))
                                         for p, value in zip(CLASSES, values)],
                                        columns=["support", "values", "method", "prompts", "asr"]),
        "agreement_control": pd.DataFrame([("dim, few answers", "random vector", 0.5, 0.4, 0.35)],
                                          columns=["method_a", "method_b", "threshold", "iou", "chance"]),
        "fig7_agreement": pd.DataFrame([(*pair, t, 0.5, 0.5, 0.6, 0.33, 1e-12) for pair in PAIRS for t in (0.5, 1)],
                                       columns=["method_a", "method_b", "threshold", "sparsity_a", "sparsity_b", "iou",
                                                "chance", "p"]),
    }


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder away from the repository, on record too; call it to save tables for a preset."""
    monkeypatch.setattr(paths, "results", lambda preset: tmp_path / preset)
    monkeypatch.setattr(paths, "recorded_results", paths.results)

    def save(preset, tables):
        for name, table in tables.items():
            save_table(preset, name, table)

    return save


def cases_of(claim_id, tables):
    """The cases of one claim by hand-made tables, with what stands beside them."""
    claim = next(claim for claim in claims() if claim.id == claim_id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compared, "load_table", lambda preset, name: tables[name])
        return cases(claim, partial(measured_table, "tiny"))


def verdict_on(claim_id, tables):
    return verdict(cases_of(claim_id, tables))


# -- rules -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("kind", "limits", "met"), [
    ("at_least", (1.0,), [False, True, True, False]), ("at_most", (1.0,), [True, True, False, False]),
    ("above", (1.0,), [False, False, True, False]), ("below", (1.0,), [True, False, False, False]),
    ("within", (1.0, 2.0), [False, True, True, False]), ("within", (0.5, 1.0), [True, True, False, False]),
])
def test_rules(kind, limits, met):
    assert Rule(kind, limits).met(pd.Series([0.5, 1.0, 2.0, np.nan])).tolist() == met


def test_a_limit_survives_rounding():
    assert Rule("at_most", (13.0,)).met(pd.Series([100 * (0.11 + 0.15) / 2 + 1e-14])).all()
    assert not Rule("above", (0.3,)).met(pd.Series([0.1 + 0.2])).any()
    assert not Rule("at_most", (1e-10,)).met(pd.Series([1.01e-10])).any()


def test_an_interval_over_the_limit_is_close():
    value, low, high = (pd.Series(numbers) for numbers in zip((2, 1, 3), (2, 0, 3), (0, -1, 0.5), (0, -1, 2)))
    assert Rule("at_least", (1.0,)).clear(value, low, high).tolist() == [True, False, True, False]
    spans = (2, 1.5, 2.5), (2, 0, 2.5), (9, 8, 10), (4, 0, 9), (4, 2, 9)
    value, low, high = (pd.Series(numbers) for numbers in zip(*spans))
    assert Rule("within", (1.0, 3.0)).clear(value, low, high).tolist() == [True, False, True, False, False]


def of_checks(*checks):
    """Cases of several checks, each so many that meet the rule of so many; 0 of 0 is a check that is not measured."""
    rows = [(f"check {i}", one < met if n else None) for i, (met, n) in enumerate(checks) for one in range(n or 1)]
    return pd.DataFrame(rows, columns=["quantity", "met"])


@pytest.mark.parametrize(("checks", "word"), [
    ([(27, 27)], "holds"), ([(0, 27)], "does not hold"), ([(35, 36)], "mostly holds"), ([(1, 27)], "mostly fails"),
    ([(4, 5)], "mostly holds"), ([(3, 4)], "holds in part"), ([(1, 5)], "mostly fails"), ([(1, 4)], "holds in part"),
    ([(15, 15), (0, 1)], "holds in part"),  # 15 of 16, but one of its checks fails
    ([(0, 15), (1, 1)], "holds in part"), ([(14, 15), (1, 2)], "mostly holds"), ([(1, 15), (1, 2)], "mostly fails"),
    ([(2, 2), (0, 0)], "holds"), ([(0, 0)], "not measured"), ([], "no case"),
])
def test_verdicts(checks, word):
    assert verdict(of_checks(*checks)) == word and word in VERDICTS


def test_a_check_keeps_spreads_and_names_its_cases():
    rows = [("a", 1, "x", 6.0), ("a", 1, "y", 2.0), ("b", 2, "x", 1.0), ("b", 2, "y", 0.0), ("c", 9, "x", 5.0)]
    table = pd.DataFrame(rows, columns=["name", "size", "part", "points"])
    check = Check("ratio", "t", "x / y", Rule("at_most", (4.0,)), case=("name", "size"),
                  where=("size < 5", "part != 'z'"), spread=("part", "points"))
    rows = check.cases(table)
    assert rows.case.tolist() == ["a, 1", "b, 2"] and rows.value.tolist() == [3.0, np.inf]
    assert rows.met.tolist() == [True, False] and rows.low.isna().all()


@pytest.mark.parametrize("field, expression, message", [
    ("where", ["@__import__('os').system('touch pwned')"], "which is no expression"),
    ("where", ["@pd.io.common.os.getcwd() == ''"], "which is no expression"),
    ("where", ["method == 'dim'", "method.map(print)"],
     r"with 'method.map\(print\)' in it: allowed are columns, constants"),
    ("where", ["method.str.contains('a', regex=False)"], "contains"),
    ("where", ["method.str.contains(kind)"], "contains"),
    ("where", ["__import__('os').system('touch pwned')"], "__import__"), ("where", ["(lambda: 1)() == 1"], "lambda"),
    ("where", ["method.values.tofile('pwned')"], "tofile"), ("where", ["method[0] == 'd'"], "method"),
    ("where", ["__pd_eval_local_x == 1"], "__pd_eval_local_x"), ("where", ["`a b` == 1"], "which is no expression"),
    ("where", "method == 'dim'", "must be a list of expressions, not \"method == 'dim'\""),
    ("where", [3], "3, which is no expression"), ("value", "asr.to_csv('pwned')", "to_csv"),
    ("value", "asr ** 9", "'Pow' in it"),
    ("value", "x = 3", "which is no expression"), ("value", "asr\nx = 3", "which is no expression"),
    ("value", 3, "3, which is no expression"),
])
def test_expressions_of_claims_are_data_and_run_no_code(field, expression, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    check = {"quantity": "q", "table": "table2_asr", "value": "asr", "case": ["method"], "at_least": 0, field: expression}
    entry = {"id": "mine", "title": "", "locator": "", "says": "", "limits": "", "checks": [check]}
    monkeypatch.setattr("steerpaper.paper.claims.entries", lambda: [entry])
    with pytest.raises(ValueError, match=f"claim 'mine'.*{message}"):
        claims()
    assert not list(tmp_path.iterdir())


def test_claims_read_tables_that_are_declared(monkeypatch):
    check = {"quantity": "q", "table": "table2_as", "value": "asr", "case": ["method"], "at_least": 0}
    entry = {"id": "mine", "title": "", "locator": "", "says": "", "limits": "", "checks": [check]}
    monkeypatch.setattr("steerpaper.paper.claims.entries", lambda: [entry])
    with pytest.raises(ValueError, match=r"table of claim 'mine' 'table2_as' \(did you mean 'table2_asr'\?\)"):
        claims()


def test_expressions_that_are_data_keep_their_meaning(monkeypatch):
    where = ["method in ['dim', 'ntp'] and not prompts == 'both'", "kind.str.contains('wi')",
             "0.2 <= asr < 0.9 or -asr > 1", "kept == kept.max()", "~method.duplicated()"]
    check = {"quantity": "q", "table": "table2_asr", "where": where, "value": "(asr - kept) / 2 + 1 * kept", "case": ["method"],
             "above": 0}
    entry = {"id": "mine", "title": "", "locator": "", "says": "", "limits": "", "checks": [check]}
    monkeypatch.setattr("steerpaper.paper.claims.entries", lambda: [entry])
    rows = [("dim", "x", "twice", 0.3, 1.0), ("dim", "x", "twice", 0.5, 1.0), ("ntp", "x", "twice", 0.6, 0.5),
            ("po", "x", "twice", 0.4, 1.0), ("dim", "both", "twice", 0.4, 1.0), ("ntp", "x", "once", 0.4, 2.0)]
    table = pd.DataFrame(rows, columns=["method", "prompts", "kind", "asr", "kept"])
    [claim] = claims()
    found = cases(claim, lambda name: table)
    assert found.case.tolist() == ["dim"] and found.value.tolist() == [pytest.approx(0.65)]


def test_a_missing_column_is_not_measured():
    known, unknown = (Check(name, "t", name, Rule("above", (0.0,)), case=("name",)) for name in ("asr", "nothing"))
    claim = Claim("mine", "", "", "", "", (known, unknown))
    rows = cases(claim, lambda name: pd.DataFrame({"name": ["a", "b"], "asr": [0.1, -0.1]}))
    assert rows.case.tolist() == ["a", "b", "not measured"] and rows.met.tolist()[:2] == [True, False]
    assert rows.met.isna().tolist() == [False, False, True]
    assert verdict(rows) == "holds in part" and summary(rows).endswith("; nothing: not measured")
    alone = replace(claim, checks=(unknown,))
    assert verdict(cases(alone, lambda name: pd.DataFrame({"name": ["a"]}))) == "not measured"


@pytest.mark.parametrize("preset", ["organism-gemma2", "organism-llama"])
def test_all_is_measured_that_is_on_record(preset):
    saved = pd.read_csv(paths.recorded_results(preset) / "scorecard_cases.csv")
    measured = saved.dropna(subset="met").groupby("claim").quantity.unique().map(list).to_dict()
    assert measured == {claim.id: [check.quantity for check in claim.checks] for claim in claims()}


def test_the_summary_shows_the_weakest_case():
    check = Check("q", "t", "v", Rule("at_least", (0.5,)), case=("name",), interval=("low", "high"))
    table = pd.DataFrame({"name": ["a", "b"], "v": [0.9, 0.6], "low": [0.8, 0.4], "high": [0.95, 0.7]})
    rows = cases(Claim("c", "", "", "", "", (check,)), lambda name: table)
    assert summary(rows) == "q: 0.6 to 0.9, weakest b with 0.6 (0.4 to 0.7)"
    zeros = rows.assign(value=-0.0, low=-0.0, high=0.0)
    assert summary(zeros).endswith(" with 0 (0 to 0)") and "-0" not in summary(zeros)
    assert rows.margin.tolist() == pytest.approx([0.4, 0.1])
    assert rows.clear.tolist() == [True, False]
    missing = cases(Claim("c", "", "", "", "", (check,)), lambda name: table.assign(low=[0.8, np.nan]))
    assert missing.clear.tolist() == [True, None]  # without an interval a case is neither clear nor close


# -- the claims --------------------------------------------------------------------------------------------

def test_claims_are_complete():
    found = claims()
    assert len({claim.id for claim in found}) == len({claim.title for claim in found}) == len(found)
    assert sum(claim.abstract for claim in found) == 14
    for claim in found:
        assert claim.limits and claim.locator and claim.says
        assert claim.reported or all(any(reported_table(model, check.table) is not None for check in claim.checks)
                                     for model in ("gemma-2-2b-it", "llama-3.2-3b-instruct"))
        assert len({check.quantity for check in claim.checks}) == len(claim.checks)


def test_a_quantity_is_defined_once():
    """Whoever asks for it."""
    defined = {(check.quantity, check.table, check.value) for claim in claims() for check in claim.checks}
    assert len({quantity for quantity, *_ in defined}) == len(defined)


@pytest.mark.parametrize("claim", [claim.id for claim in claims()])
def test_every_claim_holds_where_it_should(claim):
    assert verdict_on(claim, hand_made()) == "holds"


# Per claim and check a table, the column changed, its new value from the old one everywhere, and what then is left of
# this check: no case that meets its rule.
BROKEN = {
    ("effective", 0): ("table2_asr", "asr", lambda t: 0.79),
    ("effective", 1): ("table2_asr", "asr", lambda t: 0.04),
    ("effective", 2): ("table2_asr", "clean_share_of_base", lambda t: 0.79),
    ("random-vectors", 0): ("random_control", "asr_change", lambda t: np.sign(t.method_change) * 0.2),
    ("few-edges", 0): ("fig3_minimum_faithful", "share", lambda t: 0.14),
    ("few-edges", 1): ("fig3_interchange", "faithfulness", lambda t: 0.84),
    ("whole-answers", 0): ("fig19_single_sets", "faithfulness", lambda t: t.faithfulness.clip(upper=0.74)),
    ("whole-answers", 1): ("effect_shares", "largest", lambda t: 0.5),
    ("interchangeable", 0): ("fig3_interchange", "faithfulness", lambda t: 0.84),
    ("beyond-random", 0): ("fig3_interchange", "faithfulness", lambda t: t.faithfulness.clip(lower=0.45)),
    ("beyond-random", 1): ("random_vector_circuits", "other_share", lambda t: 0.5),
    ("ov-not-qk", 0): ("table1_average_drop", "drop_points", lambda t: 69.0),  # of 95 points
    ("ov-not-qk", 1): ("table1_average_drop", "drop_points", lambda t: 14.0),
    ("ov-not-qk-learned", 0): ("table1_average_drop", "drop_points", lambda t: 69.0),
    ("ov-not-qk-learned", 1): ("table1_average_drop", "drop_points", lambda t: 14.0),
    ("svv-concepts", 0): ("svv_preference", "preference", lambda t: 0.7),
    ("svv-concepts", 1): ("svv_preference", "preference", lambda t: 0.6),
    ("svv-concepts", 2): ("svv_preference", "preference", lambda t: 0.6),
    ("sparse", 0): ("sparsity_kept", "sparsity", lambda t: 0.8),
    ("sparse", 1): ("sparse_test", "clean", lambda t: t.clean.where(t.vector == "dense", 0.8)),
    ("sparse-plain", 0): ("sparsity_kept", "sparsity", lambda t: t.sparsity.where(t.rescaled, 0.45)),
    ("sparse-values", 0): ("support_control", "asr", lambda t: t.prompts.map({"harmful": 0.9, "harmless": 0.0})),
    ("agree", 0): ("fig7_agreement", "p", lambda t: 0.05),
    ("agree", 1): ("fig7_agreement", "iou", lambda t: 0.38),
    ("unsteered", 0): ("table2_asr", "asr", lambda t: 0.04),
    ("unsteered", 1): ("table2_asr", "asr", lambda t: 0.98),
    ("cosines", 0): ("cosines", "cosine", lambda t: -0.1),
    ("overlap", 0): ("fig4_overlap", "overlap", lambda t: 0.89),
    ("controls", 0): ("minimum_faithful", "faithfulness", lambda t: -0.11),
    ("controls", 1): ("random_circuits", "high", lambda t: t.high.mask(t.control == "twice the size", 0.1)),
    ("controls", 2): ("random_circuits", "median", lambda t: t["median"].mask(t.control == "same kinds", 0.45)),
    ("edge-types", 0): ("table5_8_edge_types", "from_attention_head",
                        lambda t: t.from_attention_head.where(t.edges == "all edges", 59.0)),
    ("edge-types", 1): ("table5_8_edge_types", "into_key", lambda t: 11.0),
    ("edge-types", 2): ("table5_8_edge_types", "into_key", lambda t: t.into_key.where(t.edges == "all edges", 6.0)),
    ("ov-not-qk-logits", 0): ("freeze_on_logits", "undone", lambda t: t.undone.mask(t.frozen == "ov", 0.5)),
    ("ov-not-qk-logits", 1): ("freeze_on_logits", "undone", lambda t: t.undone.mask(t.frozen == "qk", 0.18)),
    ("mlps", 0): ("table1_average_drop", "drop_points", lambda t: t.drop_points.mask(t.frozen == "mlp", 27.5)),
    ("order-of-drops", 0): ("table1_average_drop", "drop_points", lambda t: t.drop_points.mask(t.frozen == "mlp", 5.0)),
    ("order-of-drops", 1): ("table1_average_drop", "drop_points", lambda t: t.drop_points.mask(t.frozen == "svv", 19.0)),
    ("order-of-drops", 2): ("table1_average_drop", "drop_points", lambda t: t.drop_points.mask(t.frozen == "ov", 50.0)),
    ("svv-share", 0): ("table1_average_drop", "drop_points", lambda t: t.drop_points.mask(t.frozen == "svv", 45.0)),
    ("baselines", 0): ("sparsity_kept", "sparsity", lambda t: 0.0),
    ("baselines", 1): ("sparsity_kept", "sparsity", lambda t: 0.0),
    ("order-of-sparsifiers", 0): ("sparsity_kept", "sparsity_same_prompts", lambda t: 0.5),
    ("order-of-sparsifiers", 1): ("sparsity_kept", "sparsity_same_prompts", lambda t: 0.5),
    ("order-of-sparsifiers", 2): ("sparsity_kept", "sparsity_same_prompts",
                                  lambda t: t.sparsity_same_prompts.where(t.rescaled, 0.5)),
    ("order-of-sparsifiers", 3): ("sparsity_kept", "sparsity_same_prompts",
                                  lambda t: t.sparsity_same_prompts.where(t.rescaled, 0.5)),
    ("tiny-p", 0): ("fig7_agreement", "p", lambda t: 1e-9),
}


@pytest.mark.parametrize(("claim", "i"), [(claim, i) for claim in claims() for i in range(len(claim.checks))],
                         ids=lambda value: getattr(value, "id", value))
def test_every_check_can_fail(claim, i):
    name, column, new = BROKEN[claim.id, i]
    tables = hand_made()
    rows = cases_of(claim.id, tables | {name: tables[name].assign(**{column: new})})
    own = rows[rows.quantity == claim.checks[i].quantity]
    assert len(own) and not own.met.any()
    assert verdict(rows) not in ("holds", "mostly holds")


def test_a_dead_vector_bears_out_no_claim_on_sparsity():
    tables = hand_made()
    tables["sparsity_kept"] = tables["sparsity_kept"].assign(sparsity=0.0, sparsity_same_prompts=0.0)
    for claim in ("sparse-plain", "baselines", "order-of-sparsifiers"):
        assert verdict_on(claim, tables) == "does not hold"


def test_what_claims_compare_with_stands_beside():
    tables = hand_made()
    tables["fig3_interchange"].loc[lambda t: (t.circuit == "random vector") & (t.vector == "po"), "faithfulness"] = 0.8
    rows = cases_of("beyond-random", tables)
    assert len(rows) == 24 and rows[~rows.met.astype(bool)].case.str.startswith("po, ").all()
    assert rows[rows.case == "po, dim, harmful"].value.item() == pytest.approx(0.8 / 0.9)
    assert rows[rows.case == "dim, po, harmless"].value.item() == pytest.approx(0.3 / 0.9)
    rows = cases_of("whole-answers", tables)  # not the size at which both are nearly all of the graph
    assert rows.case.tolist() == ["harmful, 0.1", "harmless, 0.1", "together"]
    assert rows.value.tolist() == pytest.approx([0.2, 0.2, 0.4])
    rows = cases_of("edge-types", tables)
    assert rows.value.tolist() == pytest.approx([70 / 60] * 3 + [6 / 75] * 6)
    rows = cases_of("agree", tables)  # of the two thresholds the control has one
    assert rows.value[rows.quantity.str.startswith("IoU")].tolist() == pytest.approx([0.27 - 0.05] * 3)


def test_paired_intervals_tell_close_cases_and_change_no_verdict():
    """Of what one circuit carries more than another, and of the share: where the tables have them."""
    tables = hand_made()
    before = {name: cases_of(name, tables) for name in ("beyond-random", "whole-answers")}
    assert all(rows.clear.isna().all() for rows in before.values())
    through, single = tables["fig3_interchange"], tables["fig19_single_sets"]
    tables["fig3_interchange"] = through.assign(
        other_share_low=0.3, other_share_high=np.where(through.vector == "po", 0.6, 0.4))
    tables["fig19_single_sets"] = single.assign(
        difference_low=np.where(single.prompts == "harmful", 0.04, 0.1), difference_high=0.3)
    after = {name: cases_of(name, tables) for name in before}
    close = {name: rows.case[rows.clear == False].tolist() for name, rows in after.items()}  # noqa: E712
    assert len(close["beyond-random"]) == 4 and all(case.startswith("po, ") for case in close["beyond-random"])
    assert close["whole-answers"] == ["harmful, 0.1"]
    for name, rows in after.items():
        assert rows.met.tolist() == before[name].met.tolist() and rows.value.tolist() == before[name].value.tolist()


def test_the_sum_is_held_against_a_vector_only_where_that_names_nothing():
    rows = cases_of("svv-concepts", hand_made())
    own = rows[rows.quantity.str.contains("names nothing")]
    assert set(own.case) == {f"{method}, {scale}" for method in ("dim", "ntp") for scale in ("refusal", "harm")}
    assert own.value.tolist() == pytest.approx([0.3] * 4)


def test_the_paper_s_edges_beside_those_of_its_graphs():
    claim = next(claim for claim in claims() if claim.id == "edge-types")
    rows = cases(claim, partial(reported_table, "gemma-2-2b-it")).set_index(["quantity", "case"]).value
    heads, circuit, top = (check.quantity for check in claim.checks)
    assert rows[heads, "dim"] == pytest.approx(0.716 / (7656 / 8790))
    assert rows[circuit, "po"] == pytest.approx((0.119 + 0.018) / ((4048 + 2024) / 8790))
    assert rows[top, "po"] == pytest.approx(0.01 / ((4048 + 2024) / 8790))


@pytest.mark.parametrize("claim", [claim.id for claim in claims()])
def test_a_method_of_one_s_own_changes_no_verdict(claim):
    """Two methods, absurd in every number, beside those of the paper in every table that tells methods apart."""
    tables, found = hand_made(), set()
    for name, table in tables.items():
        for column in {"method", "method_a", "method_b", "vector", "circuit"} & set(table):
            if (rows := table[table[column].isin(METHODS)]).empty:
                continue
            labels = {"threshold", "sparsity", "sparsity_a", "sparsity_b"}
            wrong = {measured: -1e6 for measured in rows.select_dtypes("float") if measured not in labels}
            wrong |= {flag: False for flag in rows.select_dtypes("bool") if flag != "rescaled"}
            keys = [key for key in rows if key not in wrong]
            mine = [rows.assign(**{column: "mine"}, **wrong), rows.assign(**{column: "mine, too"}, **wrong)]
            mine[1] = mine[1].assign(**{key: 1e6 for key in wrong})
            tables[name] = pd.concat([tables[name], *(table.drop_duplicates(keys) for table in mine)])
            found.add(name)
    assert {"svv_preference", "fig7_agreement", "sparse_test", "fig3_interchange", "table2_asr"} <= found
    assert verdict_on(claim, tables) == "holds"


# Claims whose rules the paper's own tables do not meet, by model.
BOTH = {"gemma-2-2b-it", "llama-3.2-3b-instruct"}
NOT_BORNE_OUT = {"order-of-drops": {"llama-3.2-3b-instruct"}, "baselines": BOTH, "edge-types": BOTH,
                 "order-of-sparsifiers": {"gemma-2-2b-it"}}


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim.id)
def test_the_paper_s_own_numbers_meet_the_limits(claim):
    for model in ("gemma-2-2b-it", "llama-3.2-3b-instruct"):
        own = {"holds in part", "mostly holds"}
        expected = own if model in NOT_BORNE_OUT.get(claim.id, ()) else {"holds", "not printed"}
        assert as_reported(claim, model)[0] in expected


@pytest.mark.parametrize("claim", ["effective", "few-edges", "ov-not-qk", "unsteered", "sparse"])
def test_limits_are_the_paper_s_least_favourable_numbers(claim):
    claim = next(one for one in claims() if one.id == claim)
    models = ("gemma-2-2b-it", "llama-3.2-3b-instruct")
    rows = pd.concat(cases(claim, partial(reported_table, model)) for model in models).dropna(subset="met")
    # What rounding to the digits printed may give away.
    least = rows.astype({"margin": float}).groupby("quantity").margin.min()
    assert len(least) and all(-1e-9 <= margin <= 0.0005 for margin in least)


def test_nothing_left_is_no_comparison():
    tables = hand_made()
    empty = tables["fig7_agreement"].assign(sparsity_b=1.0, iou=0.0, chance=0.0, p=1.0, threshold=2.5)
    tables["fig7_agreement"] = pd.concat([tables["fig7_agreement"], empty])
    assert verdict_on("agree", tables) == verdict_on("tiny-p", tables) == "holds"


def test_undefined_values_do_not_hold():
    tables = hand_made()
    tables["table1_average_drop"] = tables["table1_average_drop"].assign(drop_points=0.0)
    assert verdict_on("svv-share", tables) == "does not hold"  # 0 of 0


def test_no_rows_are_no_case():
    tables = hand_made()
    tables["fig7_agreement"] = tables["fig7_agreement"].assign(sparsity_a=0.1)
    assert verdict_on("tiny-p", tables) == "no case"
    tables["svv_preference"] = tables["svv_preference"].query("vector == 'SV'")
    assert verdict_on("svv-concepts", tables) == "no case"


def test_sparsity_kept_by_hand(monkeypatch):
    rows = [("dim", "gradient", p, s, asr, float(p == "harmless"))
            for p, values in (("harmful", (1.0, 0.9, 0.79, 0.9)), ("harmless", (0.0, 0.2, 0.0, 0.0)))
            for s, asr in zip((0.0, 0.5, 0.8, 0.9), values)]
    rows += [("po", "gradient", p, s, 0.5, 0.5) for p in CLASSES for s in (0.0, 0.5)]  # no effect to keep
    table = pd.DataFrame(rows, columns=["method", "sparsifier", "prompts", "sparsity", "asr", "unsteered"])
    kept = sparsity_kept(table)
    curves = [("dim", "harmful"), ("dim", "harmless"), ("po", "harmful"), ("po", "harmless")]
    assert list(zip(kept.method, kept.prompts)) == curves and kept.sparsity.tolist() == [0.5, 0.9, 0.0, 0.0]
    every = sparsity_kept(table, "both")
    assert every[:4].equals(kept) and every.prompts[4:].tolist() == ["both"] * 2
    assert list(zip(every.method[4:], every.sparsity[4:])) == [("dim", 0.5), ("po", 0.0)]
    again = table.query("sparsity == 0.5 and method == 'dim'").assign(asr=0.5)  # one of two at a sparsity fails
    assert sparsity_kept(pd.concat([table, again])).sparsity.tolist() == [0.0, 0.0, 0.0, 0.0]
    resamples = pd.concat([table.assign(resample=0), table.assign(resample=1, asr=1 - table.unsteered)])
    assert sparsity_kept(resamples, "both").query("prompts == 'both'").sparsity.tolist() == [0.5, 0.9, 0.0, 0.0]
    monkeypatch.setattr(tables, "paper_text", lambda: {"effect_kept": 0.85})
    assert sparsity_kept(table).sparsity.tolist() == [0.5, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("preset", ["organism-gemma2", "organism-llama"])
def test_one_share_of_the_effect_is_that_of_the_record(preset):
    record = paths.recorded_results(preset)
    rates = [pd.read_csv(record / f"{name}.csv") for name in ("table10_11_sparsity", "table10_11_second_set")]
    keys = ["method", "sparsifier", "rescaled", "prompts"]
    kept = sparsity_kept(pd.concat(rates, ignore_index=True), "all three")
    found, saved = (table.set_index(keys).sort_index().sparsity for table in
                    (kept, pd.read_csv(record / "sparsity_kept.csv")))
    pd.testing.assert_series_equal(found, saved, rtol=1e-5)


def test_drops_are_compared_within_method_and_resample():
    drops = {("dim", 0): (5, 20, 40, 50), ("dim", 1): (5, 40, 20, 80), ("po", 0): (0, 1, 2, 0)}
    rows = [(*key, *pair) for key, points in drops.items() for pair in zip(("qk", "mlp", "svv", "ov"), points)]
    rows += [("dim", 0, "residual-only", 90)]
    table = drop_contrasts(pd.DataFrame(rows, columns=["method", "resample", "frozen", "drop_points"]))
    found = table.set_index(["method", "resample", "frozen"]).sort_index()
    assert found.of_ov["dim", 0].to_dict() == pytest.approx(
        {"qk": 0.1, "mlp": 0.4, "svv": 0.8, "ov": 1, "residual-only": 1.8})
    assert found.step["dim", 1].drop("qk").to_dict() == {"mlp": 35, "svv": -20, "ov": 60}
    assert np.isnan(found.step["dim", 0, "qk"]) and np.isnan(found.step["dim", 0, "residual-only"])
    assert np.isinf(found.of_ov["po", 0, "svv"]) and np.isnan(found.of_ov["po", 0, "qk"])
    again = drop_contrasts(table)
    pd.testing.assert_frame_equal(again, table)


# -- the paper's numbers -----------------------------------------------------------------------------------

def values_of(path):
    """Every number or word that a file reports, apart from what tells its rows apart."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    labels = {"model", "method", "ablation", "prompts", "response_from", "hyperparameter", "metric", "quantity",
              "steering_layer", "benchmark", "sparsifier", "vector", "rank_shown"}
    if path.stem.startswith(("table9", "table10")):
        labels |= {"threshold", "sparsity_percent"}
    return table[[column for column in table if column not in labels]].to_numpy().ravel()


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.csv")), ids=lambda path: path.stem)
def test_every_reported_value_is_in_the_numbers(path):
    numbers = reported_numbers()
    found = list(numbers[numbers.source == path.stem].reported)
    for value in values_of(path):
        text = value if not value.replace(".", "").isdigit() else f"{float(value):.6g}"
        assert text in found, value
        found.remove(text)
    # What is left was derived: shares, and the sparsities that many rows of tables 10 and 11 have in common.
    derived = {"table9_positions": 4, "graph_counts": 4, "table10_11_sparsity": 48}
    assert len(found) == derived.get(path.stem, 0)


def test_numbers_without_results_say_so():
    numbers = reported_numbers()
    assert (numbers.measured == "").all() and (numbers.note != "").all()
    assert set(numbers.model) == {"gemma-2-2b-it", "llama-3.2-3b-instruct", "both"}


def test_nothing_stands_beside_another_concept(monkeypatch):
    monkeypatch.setattr(beside, "get_preset", lambda name: SimpleNamespace(concept="lists"))
    numbers = reported_numbers("tiny")
    assert (numbers.measured == "").all() and "not run" not in set(numbers.note)
    assert numbers.reported.equals(reported_numbers().reported) and (numbers.note == "what is steered is not refusal").any()
    assert reported("table1_ablations", replace(REFUSAL, name="lists")).empty and len(reported("table1_ablations"))


def test_numbers_stand_beside_the_right_ones(results):
    results("tiny", hand_made())
    numbers = reported_numbers("tiny").set_index(["source", "model", "quantity"])
    llama = numbers.xs("llama-3.2-3b-instruct", level="model")
    row = llama.loc["table1_ablations", "dim, mlp, jailbreakbench: asr"]
    assert (row.reported, row.measured, row.low, row.high, row.note) == ("0.09", "0.6", "0.55", "0.65", "")
    assert llama.loc["table2_asr", "ntp, alpaca: asr"].measured == "0"
    row = llama.loc["table2_asr", "ntp, strongreject: asr"]
    assert (row.reported, row.measured, row.low, row.high) == ("0.882", "0.9", "0.85", "0.95")
    assert row.note.startswith("StrongREJECT: ours are the harmful halves of the borderline pairs, 20 prompts, ")
    row = llama.loc["table2_asr", "none, strongreject: asr"]  # 0 of 20: z²/(n + z²) by Wilson's formula
    assert (row.measured, float(row.low)) == ("0", 0) and float(row.high) == pytest.approx(1.96**2 / 23.8416, abs=1e-4)
    assert llama.loc["table8_incoming_top", "po, top, into_mlp: percent"].measured == "45"
    assert llama.loc["graph_counts", "po: n_edges"][["reported", "measured"]].tolist() == ["16500", "120"]
    row = llama.loc["table10_11_sparsity", "dim, dropout, threshold 1, jailbreakbench: asr"]
    assert row[["reported", "measured"]].tolist() == ["0.59", "0.5"]
    assert row.note == "reported at sparsity 83.5%, measured at 80.0%"
    gemma = numbers.xs("gemma-2-2b-it", level="model")
    both = gemma[["reported", "measured"]].apply(tuple, axis=1)
    assert both["table9_positions", "KL, threshold 1: share"] == ("0.202085", "0.2")
    assert both["table3_patching_data", "ntp, harmless, base: positions"] == ("6864", "400")
    assert both["figure5_12_svv_tokens", "po, SUM, rank 3: token"] == (" dangerous", "a")
    shared = numbers.xs("both", level="model").measured
    assert shared["table1_average_drop", "dim, svv: drop_points"] == "50"
    assert shared["table4_training", "batch_size: values"] == "6; 12"
    assert shared["table4_training", "phi: values"] == "1e-05" and shared["table4_training", "epochs: values"] == "3"
    assert shared["table4_training", "optimizer: values"] == ""


def test_a_threshold_that_leaves_nothing_is_said(results):
    tables = hand_made()
    results("tiny", tables)
    whole = reported_numbers("tiny")
    tables["table10_11_sparsity"] = tables["table10_11_sparsity"].query("threshold < 2.5")
    tables["table10_11_second_set"] = tables["table10_11_second_set"].query("threshold < 2.5")
    results("tiny", tables)
    rows = reported_numbers("tiny")
    ended = rows[rows.quantity.str.endswith("threshold 2.5: sparsity")]
    assert len(ended) == 6 and set(ended.note) == {"no dimension of our vector is left at this τ"}
    assert set(whole.note[ended.index]) == {""}


def test_a_row_that_we_lack_is_named(results):
    tables = hand_made()
    tables["table2_asr"] = tables["table2_asr"].query("method != 'po'")
    results("tiny", tables)
    numbers = reported_numbers("tiny")
    lacking = numbers[(numbers.source == "table2_asr") & numbers.quantity.str.startswith("po, alpaca")]
    assert set(lacking.note) == {"no such row in our table"} and set(lacking.measured) == {""}


def test_paper_tables_hold_rates_and_known_sets():
    tables = paper_tables()
    assert tables["table10_11_sparsity"].sparsity.between(0, 1).all()
    for name in ("table1_ablations", "table2_asr", "table10_11_sparsity"):
        assert tables[name].asr.between(0, 1).all()
        assert tables[name].prompts.tolist() == [TEST_SETS[test_set] for test_set in tables[name].test_set]
    ntp = tables["table2_asr"].query("model == 'gemma-2-2b-it' and method == 'ntp'").set_index("test_set").asr
    assert ntp.to_dict() == {"alpaca": 0.03, "jailbreakbench": 0.84, "strongreject": 0.831}


def test_drops_as_shares_of_what_steering_does_by_hand():
    """A mean over sets of prompts before the division."""
    rows = [("none", "none", "harmful", 0.1), ("none", "none", "harmless", 0.9), ("dim", "none", "harmful", 0.9),
            ("dim", "none", "harmless", 0.5), ("po", "none", "harmful", 0.1), ("po", "none", "harmless", 0.9)]
    ablations = pd.DataFrame(rows, columns=["method", "frozen", "prompts", "asr"])
    frozen = ablations.assign(frozen="ov", asr=0.0)  # no steering by itself
    drops = pd.DataFrame({"method": ["dim", "po"], "frozen": "ov", "drop_points": 30.0, "drop_points_low": 15.0,
                          "drop_points_high": 45.0})
    found = of_steering(drops, pd.concat([ablations, frozen]))
    assert found[["of_steering", "of_steering_low", "of_steering_high"]].iloc[0].tolist() == pytest.approx(
        [30 / 60, 15 / 60, 45 / 60])  # 80 and 40 points, 60 on average
    assert found.of_steering.isna().tolist() == [False, True]  # PO does nothing, so nothing of it is undone
    assert "of_steering_low" not in of_steering(drops.drop(columns=["drop_points_low", "drop_points_high"]), ablations)


def test_average_drop_by_hand():
    of = {model: average_drop(reported("table1_ablations", model=model)).set_index("frozen").drop_points
          for model in ("gemma-2-2b-it", "llama-3.2-3b-instruct")}
    assert of["gemma-2-2b-it"]["svv"] == pytest.approx((35 + 60) / 2)
    assert of["llama-3.2-3b-instruct"]["mlp"] == pytest.approx((50 + 76) / 2)
    both = average_drop(reported("table1_ablations"))
    assert both.set_index(["method", "frozen"]).drop_points["dim", "svv"] == pytest.approx((35 + 60 + 86 + 38) / 4)


@pytest.mark.parametrize("preset", ["organism-gemma2", "organism-llama"])
def test_average_drop_is_that_of_the_record(preset):
    record = paths.recorded_results(preset)
    drops = average_drop(pd.read_csv(record / "table1_ablations.csv").query("method != 'none'"))
    saved, columns = pd.read_csv(record / "table1_average_drop.csv"), ["method", "frozen", "drop_points"]
    pd.testing.assert_frame_equal(drops[columns], saved[columns])


def test_what_is_reported_is_kept_by_label():
    one = reported("fig3_minimum_faithful", model="llama-3.2-3b-instruct", method=["dim", "po"])
    assert one.n_edges.tolist() == [13500, 16500] and one.graph_edges.tolist() == [124441] * 2
    assert not {"source", "locator"} & set(one) and one.index.tolist() == [0, 1]
    assert reported("graph_counts", model="llama-3.2-3b-instruct", quantity="into_mlp").value.item() == 3400
    rates = reported("table10_11_sparsity", model="gemma-2-2b-it", test_set="strongreject")
    assert set(rates.unsteered) == {0.013} and set(rates.prompts) == {"harmful"}
    with pytest.raises(ValueError, match=r"unknown table of the paper 'table2' \(did you mean 'table2_asr'\?\)"):
        reported("table2")
    with pytest.raises(ValueError, match=r"column of table2_asr 'metod' \(did you mean 'method'\?\): choose one of m"):
        reported("table2_asr", metod="dim")
    with pytest.raises(ValueError, match=r"threshold of table9_positions 2: choose one of 0.0, 1.0, 5.0"):
        reported("table9_positions", threshold=2)


# -- the paper's arithmetic --------------------------------------------------------------------------------

def test_arithmetic_by_hand():
    table = paper_arithmetic().set_index(["locator", "quantity"])[["printed", "recomputed", "agrees"]]
    rows = table.apply(tuple, axis=1)
    assert rows["table 1", "average drop, svv, in points"] == ("53.75", "54.75", "no")
    assert rows["§6.3", "SVV's drop, % of OV's"] == ("74.9", "76.3", "no")
    assert rows["table 1", "average drop, qk, in points"] == ("8.75", "8.75", "yes")
    different = "llama-3.2-3b-instruct: different rows of three methods' circuits, at least 2"
    assert rows["table 7", different] == ("3 rows", "1 different", "no")
    assert rows["table 5", different] == ("3 rows", "2 different", "yes")  # of 13,500 and 12,000 edges: they may agree
    assert rows["table 7", "llama-3.2-3b-instruct, dim: edges of a 13,500-edge circuit, and of the graph"] == (
        "into_mlp: 46.62 % = 6,294; into_logits: 6.36 % = 859", "into_mlp: 3,400; into_logits: 401", "no")
    for locator, what, counts in (("D.4", "edges |M|", ("8,790", "124,441")),
                                  ("D.1", "edges, queries, keys and values not split by head", ("2,212", "12,849"))):
        for model, count in zip(("gemma-2-2b-it", "llama-3.2-3b-instruct"), counts):
            assert rows[locator, f"{model}: {what}"] == (count, count, "yes")
    assert rows["F", "last of 10 midpoints in [0, 1]"] == ("1.05", "0.95", "no")
    assert rows["F", "integral of x over [0, 1] by that rule"] == ("0.6", "0.5", "no")
    assert rows["table 9", "gemma-2-2b-it, dim: positions of table 3 together"] == ("40,473", "40,473", "yes")
    repeated = rows["table 3", "gemma-2-2b-it, ntp: different sets of responses, different numbers of positions"]
    assert repeated == ("4 numbers", "3 different (harmless steered 6,864, harmless base 6,864)", "no")
    assert rows["tables 10 and 11", "sparsity at τ = 0 of all six vectors, under r < τ"] == (
        "half or more, by the rule as §7 prints it", "at most 0.0%; at τ = 0.1 9.2% to 11.6%", "no")


def test_computations_give_what_is_recomputed():
    table = paper_arithmetic()
    assert (table.computation != "").all()
    counts = table.locator.isin(["D.1", "D.4"])
    plain = counts | table.quantity.str.contains("average drop|% of OV's|of table 3 together|% of .M.|per response")
    assert plain.sum() == 29
    for row in table[plain].itertuples():
        formula = row.computation.split(" (gemma")[0].replace(",", "").replace("·", "*")
        assert set(formula) <= set("0123456789+*/(). ")
        digits = len(row.recomputed.partition(".")[2])
        assert round(eval(formula), digits) == float(row.recomputed.replace(",", "")), row.quantity
    found = table.set_index("quantity").computation
    assert found["average drop, svv, in points"] == "(35 + 60 + 86 + 38) / 4"
    assert found["SVV's drop, % of OV's"] == "100 · 54.75 / 71.75"
    assert found["gemma-2-2b-it: edges |M|"] == "(11·17 + 1) + 8·(2·11 + 17·11·10/2) + (11 + 17·11·10/2)"
    assert table.computation[table.point.isin(["8", "9"])].str.startswith("authors' code: ").all()


def test_the_nine_points_are_there_and_nothing_else_disagrees():
    table = paper_arithmetic()
    assert sorted(set(table.point)) == ["", *"123456789"]
    assert set(table.point[table.agrees == "no"]) == {"1", "2", "4", "5", "6"}
    assert set(table.point[table.agrees == "not computable"]) == {"7", "8", "9"}
    assert (table.agrees[table.point == ""] == "yes").all()


# -- scorecards and pages ----------------------------------------------------------------------------------

def test_the_scorecard_of_a_preset(results):
    results("tiny", hand_made())
    card, rows = scorecard("tiny")
    assert card.claim.tolist() == [claim.id for claim in claims()]
    assert (card.verdict == "holds").all() and (card.met == card.cases).all()
    assert rows.groupby("claim", sort=False).size().tolist() == card.cases.tolist()
    assert set(card["llama-3.2-3b-instruct verdict"]) <= set(VERDICTS)
    row = card.set_index("claim").loc["order-of-drops"]
    assert row["llama-3.2-3b-instruct verdict"] == "holds in part"  # 63 points for MLP, 62 for SVV
    assert row["gemma-2-2b-it verdict"] == "holds"
    # Intervals of 0.05 around 0 and 1, where the limits are 0.03, 0.035 and 0.99; 69 to 71 of 95 points around 0.7318.
    assert card.set_index("claim").close.loc[lambda close: close > 0].to_dict() == {
        "effective": 3, "ov-not-qk": 1, "ov-not-qk-learned": 2, "unsteered": 2}


def test_the_scorecard_counts_close_cases(results):
    tables = hand_made()
    tables["minimum_faithful"] = tables["minimum_faithful"].assign(high=lambda table: table.high + 0.09)
    tables["table1_average_drop"].loc[lambda t: t.frozen == "ov", "drop_points_low"] = 65.0
    results("tiny", tables)
    card, rows = scorecard("tiny")
    close = card.set_index("claim").close
    # Of the complement 0.01 (to 0.12) is not clearly within 0.1; quantiles of draws have no interval.
    assert close[["controls", "ov-not-qk", "ov-not-qk-learned"]].tolist() == [2, 1, 2]
    assert rows[rows.claim == "controls"].clear.tolist() == [False, False, *[None] * 4]


def test_a_scorecard_needs_every_table(results):
    tables = hand_made()
    del tables["svv_preference"]
    results("tiny", tables)
    with pytest.raises(FileNotFoundError, match="run notebook 04_ov_decomposition with preset 'tiny'"):
        scorecard("tiny")


def save_scorecard(results, preset, tables):
    results(preset, tables)
    card, rows = scorecard(preset)
    numbers = reported_numbers(preset)
    results(preset, {"scorecard_claims": card, "scorecard_cases": rows, "scorecard_numbers": numbers})
    return card


def test_nothing_measured_has_no_column(results):
    page = results_page()
    assert "No model has been measured." in page and "not run" not in page
    lines = [line for line in page.splitlines() if line.startswith("| 1. Steering works")]
    assert lines == ["| 1. Steering works, by all three methods |"]


def rows_of(page, start):
    return next(line for line in page.splitlines() if line.startswith(start)).strip("| ").split(" | ")


def test_the_page_shows_every_claim_and_number_of_what_was_measured(results):
    tables = hand_made()
    low = tables["table1_average_drop"].frozen.eq("ov") & tables["table1_average_drop"].method.eq("ntp")
    tables["table1_average_drop"].loc[low, ["drop_points", "drop_points_low", "drop_points_high"]] = 40.0
    save_scorecard(results, "organism-gemma2", tables)
    page = results_page()
    assert rows_of(page, "| claim |") == ["claim", "organism-gemma2"]
    assert rows_of(page, "| 8. NTP and PO act through OV, not QK")[1:] == ["**holds in part** (3/4, 1 close)"]
    for claim in claims():
        assert claim.title in page and claim.limits in page and all(c.rule.words in page for c in claim.checks)
    assert "| dim, mlp, jailbreakbench: asr | 0.57 | 0.09 | 0.6 (0.55 to 0.65) |" in page
    assert "agree |" not in page.partition("The paper's numbers beside ours")[2]  # another model is no replication
    widths = [{line.replace("\\|", "").count("|") for line in group} for outside, group in
              ((key, list(group)) for key, group in itertools.groupby(page.splitlines(), lambda x: x.startswith("|")))
              if outside]
    assert all(len(width) == 1 for width in widths)
    assert page.count("<details>") == page.count("</details>") == page.count("<summary>") == 3
    opened = page.partition("<details>")[0]
    assert len(opened.splitlines()) < 80 and all(claim.title in opened for claim in claims())


def test_real_models_come_first(results, monkeypatch):
    monkeypatch.setattr("steerpaper.artifacts._model", lambda preset: {"preset": preset, "weights": preset})
    for preset in ("organism-llama", "qwen2.5-coder-0.5b-instruct", "gemma-2-2b-it"):
        save_scorecard(results, preset, hand_made())
    assert rows_of(results_page(), "| claim") == [
        "claim", "qwen2.5-coder-0.5b-instruct", "organism-llama", "gemma-2-2b-it"]
    text = readme_findings()
    assert rows_of(text, "| claim") == ["claim", "qwen2.5-coder-0.5b-instruct", "organism-llama", "gemma-2-2b-it"]
    assert "\n\nOn `qwen2.5-coder-0.5b-instruct` (DIM / NTP / PO):" in text and text.count("\n* ") == 5
    assert "](figures/qwen2.5-coder-0.5b-instruct/table1_ablations.png)" in text
    assert "With intervals, beside the paper's numbers: [RES" in text


def test_the_readme_says_of_every_model_what_holds(results):
    save_scorecard(results, "organism-llama", hand_made())
    tables = hand_made()
    tables["random_control"].loc[0, "asr_change"] = -0.4
    tables["fig3_minimum_faithful"]["share"] = 0.5
    card = save_scorecard(results, "organism-gemma2", tables)
    results("organism-gemma2", {"scorecard_claims": card[card.claim != "effective"]})
    said = readme_findings()
    assert rows_of(said, "| claim") == ["claim", "organism-llama", "organism-gemma2"]
    for title, verdicts in {
        "Steering works, by all three methods": ["holds", "not measured"],
        "Random vectors of the same length do nothing (*ours*)": ["holds", "mostly holds"],
        "A tenth of the edges carries the steering": ["holds", "holds in part"],
    }.items():
        assert rows_of(said, f"| {title}") == [title, *verdicts]


def test_a_model_without_a_scorecard_is_measured_in_part(results, monkeypatch):
    monkeypatch.setattr("steerpaper.artifacts._model", lambda preset: {"preset": preset, "weights": preset})
    save_scorecard(results, "organism-llama", hand_made())
    assert "measured [in part]" not in results_page() + readme_findings()
    results("qwen2.5-coder-0.5b-instruct", {"table1_average_drop": hand_made()["table1_average_drop"]})
    for page in (results_page(), readme_findings()):
        assert "\n`qwen2.5-coder-0.5b-instruct` is measured [in part](figures/qwen2.5-coder-0.5b-instruct.md).\n" in page
    assert rows_of(results_page(), "| claim") == ["claim", "organism-llama"]


def test_findings_tell_what_was_measured(results):
    tables = hand_made()
    tables["table1_average_drop"].loc[lambda t: t.method == "ntp", "drop_points"] = 14.54
    tables["random_control"].loc[0, "asr_change"] = -0.4  # of 0.9
    results("tiny", tables)
    found = findings(scorecard("tiny")[1])
    assert [line.split("**")[1] for line in found] == [
        "Steering works, by all three methods: holds.", "A tenth of the edges carries the steering: holds.",
        "Circuits of different methods are interchangeable: holds.",
        "DIM acts through OV, not QK: holds.",
        "90 to 99 % of the dimensions can go, rescaled: holds."]
    steering, circuits, shared, freezes, sparsity = found
    assert "harmless ones, steered DIM 0.90 (0.85 to 0.95), NTP 0.90 (0.85 to 0.95), PO 0.90 (0.85 to 0.95) and DIM" in steering
    assert "Random vectors of the same length do nothing: mostly holds.**" in steering
    assert "Random vectors of the same length move ASR by -44 to 2 % of that. (Below 0 is the other way.)" in steering
    assert "has DIM 10 %, NTP 11 %, PO 12 % of the edges and carries 0.90 (0.88 to 0.92) of" in circuits
    assert "All answers together, no position holds more than 40 % of the effect." in circuits
    assert "a random vector's 30 % of what the method's own does." in shared
    assert "as many of the same kinds carry harmful 44 %, harmless 44 % of what DIM's do (medians)" in shared
    assert shared.endswith("Two methods' vectors have cosines of 0.30.")
    assert "(These are equally large; one as large as the largest carries 33 % of what another method's does.)" in shared
    assert "undoes DIM 74 % (73 to 75 %), NTP 15 % (73 to 75 %), PO 74 % (73 to 75 %) of what steering does" in freezes
    assert "the MLPs read DIM 32 % (31 to 33 %)" in freezes
    assert "the values undoes 70 % (65 to 75 %) of the effect, the attention weights 7 % of that." in freezes
    assert "without DIM 95 %, NTP 95 %, PO 95 % of their dimensions, chosen by gradient" in sparsity
    assert "With signs or the gradient for values in the rest, 10 to 44 % of the effect is left." in sparsity
    rows = scorecard("tiny")[1].astype({"met": object})
    rows.loc[rows.claim == "sparse-plain", "met"] = None
    for brief in (False, True):
        assert "without (not measured) if not." in findings(rows, brief=brief)[4]
    assert "undoes 74 / 15 / 74 % of what steering does to ASR, freezing the attention weights 5 / 15 / 5 %" in findings(rows, brief=True)[3]


def test_models_stand_side_by_side_with_the_numbers_of_the_sentences(results):
    tables = hand_made()
    save_scorecard(results, "organism-llama", tables)
    tables["table1_average_drop"].loc[lambda t: t.method == "ntp", "drop_points"] = 14.54
    tables["fig3_minimum_faithful"]["share"] = 0.5
    save_scorecard(results, "organism-gemma2", tables)
    cases = {preset: scorecard(preset)[1] for preset in ("organism-llama", "organism-gemma2")}
    table = side_by_side(cases).set_index("")
    assert list(table) == list(cases) and not table.isin(["(not measured)"]).any(axis=None)
    assert table.loc["steering of ASR undone, values (OV) frozen"].tolist() == ["74 / 74 / 74 %", "74 / 15 / 74 %"]
    assert table.loc["smallest faithful circuit, share of all edges"].tolist() == ["10 / 11 / 12 %", "50 / 50 / 50 %"]
    assert table.loc["ASR on harmful prompts, unsteered → steered", "organism-llama"].endswith(" → 0.90 / 0.90 / 0.90")
    assert table.loc["faithfulness of another method's circuit", "organism-llama"] in findings(cases["organism-llama"])[2]
    own = cases["organism-llama"]
    own["met"] = own.met.astype(object).where(own.claim != "mlps", None)
    assert side_by_side(cases).set_index("").loc["the same, vector out of the MLPs' input", "organism-llama"] == (
        "(not measured)")
    page = results_page()
    assert rows_of(page, "|  | organism")[-2:] == ["gemma-2-2b-it, reported", "llama-3.2-3b-instruct, reported"]
    assert rows_of(page, "| steering of ASR undone, values (OV) frozen")[1:] == [
        "74 / 74 / 74 %", "74 / 15 / 74 %", "73 %", "87 %"]
    assert rows_of(page, "| clean answers")[-2:] == ["–", "–"]
    assert rows_of(page, "| change of ASR by a random vector") and page.index("| ASR on harmful") < page.index("* **Steering works")
    assert "<summary>The findings on organism-gemma2</summary>" in page


def test_a_claim_that_a_scorecard_lacks_is_not_measured(results):
    card = save_scorecard(results, "organism-llama", hand_made())
    results("organism-llama", {"scorecard_claims": card[card.claim != "effective"]})
    assert rows_of(results_page(), "| 1. ") == ["1. Steering works, by all three methods", "not measured"]


def test_a_scorecard_of_other_rules_is_refused(results):
    card = save_scorecard(results, "organism-llama", hand_made())
    results("organism-llama", {"scorecard_claims": card.assign(rule=card.rule.replace("0.8", "0.7", regex=True))})
    with pytest.raises(ValueError, match="'organism-llama' was made with other claims .* run notebook 06_scorecard"):
        results_page()


def test_the_findings_go_between_the_readme_s_markers(results):
    text = "before\n<!-- findings -->\nold\n<!-- /findings -->\nafter\n"
    assert "No model has been measured." in with_findings(text)
    save_scorecard(results, "organism-llama", hand_made())
    new = with_findings(text)
    assert new == f"before\n<!-- findings -->\n{readme_findings()}\n<!-- /findings -->\nafter\n"
    assert with_findings(new) == new
    for broken in ("no markers", "<!-- findings -->", "<!-- /findings --> <!-- findings -->", text + text):
        with pytest.raises(ValueError, match="one pair of markers"):
            with_findings(broken)


def test_the_readme_says_what_the_results_say(results):
    save_scorecard(results, "organism-gemma2", hand_made())
    cases = scorecard("organism-gemma2")[1]
    for text, start, brief in ((readme_findings(), "* ", True), (results_page(), "* **", False)):
        assert [line for line in text.splitlines() if line.startswith(start)] == [
            f"* {one}" for one in findings(cases, brief=brief)]
    assert "With intervals, beside the paper's numbers: [RESULTS.md](RESULTS.md)." in readme_findings()


def test_the_abstract_s_claims_come_first(results):
    first = [claim.abstract for claim in claims()]
    assert first == sorted(first, reverse=True)
    told = f"The first {sum(first)} claims are those of the paper's abstract, with controls of them (*ours*)."
    assert told in " ".join(results_page().split())


def test_other_layers_and_prompts_stand_in_a_folded_part(results):
    assert "No model on record has been through notebook 07." in results_page()
    save_scorecard(results, "organism-gemma2", hand_made())
    keys = ["layer", "method", "frozen", "prompts", "undone"]
    results("organism-gemma2", {
        "layer_undone": pd.DataFrame([(3, m, "ov", p, x) for m, x in (("dim", 0.5), ("po", 0.8)) for p in CLASSES]
                                     + [(5, "po", "ov", p, x) for p, x in zip(CLASSES, (-0.001, 0.002))]
                                     + [(5, "ntp", "ov", "harmful", 1.0)], columns=keys),
        "collateral": pd.DataFrame([("none", 0, "right", 1.0), ("dim", 1, "right", 0.25), ("dim", -1, "right", 0.5),
                                    ("dim", 1, "kl", 9.0)], columns=["method", "sign", "measure", "value"]),
        "shifts": pd.DataFrame([("plain", "none", np.nan, 8), ("plain", "dim", 1.0, 1), ("plain", "dim", 0.5, 4),
                                ("wrapped", "dim", np.nan, 0)], columns=["shift", "method", "turned", "right"])})
    part = results_page().partition("Other layers, side effects, other prompts</summary>")[2].partition("</details>")[0]
    tables = [re.sub(r" +", " ", line) for line in part.splitlines() if line.startswith("| ")]
    assert [line for line in tables if "---" not in line] == [
        "| model | layer | of | ov |", "| organism-gemma2 | 3 | 2 | 0.80 |", "| organism-gemma2 | 5 | 2 | 0.00 |",
        "| model | method | -1 | 0 | 1 |", "| organism-gemma2 | none | | 1.00 | |", "| organism-gemma2 | dim | 0.50 | | 0.25 |",
        "| model | method | plain |", "| organism-gemma2 | dim | 0.60 |"]


def test_folded_parts_hold_no_heading_of_markdown(results):
    """It would begin a section within the block, which then ends too early in the site."""
    save_scorecard(results, "organism-gemma2", hand_made())
    folded = results_page().partition("<details>")[2]
    tables = set(reported_numbers().source) - {"table10_11_sparsity", "figure5_12_svv_tokens"}  # too long for a page
    assert "\n#" not in folded and folded.count("<h3>") == len(claims()) + len(tables)


def test_as_reported_combines_numbers_and_words():
    few = next(claim for claim in claims() if claim.id == "few-edges")
    assert as_reported(few, "gemma-2-2b-it")[0] == "holds"
    words = as_reported(few, "gemma-2-2b-it")[1]
    assert words.startswith("share of edges in the minimum-faithful circuit: 0.102; faithfulness at least 0.85")
    overlap = next(claim for claim in claims() if claim.id == "overlap")
    assert as_reported(overlap, "gemma-2-2b-it") == ("not printed", "about 0.9 or more")


# -- what is committed -------------------------------------------------------------------------------------

def test_results_page_is_current():
    assert (ROOT / "RESULTS.md").read_text(encoding="utf-8") == results_page(), "run python -m steerpaper.paper.page"


def test_readme_is_current():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_findings(readme) == readme, "run python -m steerpaper.paper.page"


def test_running_times_are_current():
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    assert with_running_times(page) == page, "run python -m steerpaper.paper.page"


def test_generated_pages_are_current():
    old = [path for path, text in generated_pages().items() if (ROOT / path).read_text("utf-8") != text]
    assert not old, "run python -m steerpaper.paper.page"


RUN = [preset for preset in SHOWN if (paths.recorded_results(preset) / "scorecard_claims.csv").is_file()]


@pytest.mark.parametrize("preset", RUN)
def test_committed_scorecards_are_what_the_committed_tables_give(preset, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "results", paths.recorded_results)
    card, rows = scorecard(preset)
    today = {"scorecard_claims": card, "scorecard_cases": rows,
             "scorecard_numbers": reported_numbers(preset)}
    saved = {name: load_table(preset, name) for name in today}
    monkeypatch.setattr(paths, "results", lambda preset: tmp_path)
    for name, table in today.items():
        save_table(preset, name, table)
        again = load_table(preset, name)
        pd.testing.assert_frame_equal(again, saved[name], obj=f"{name}: run notebook 06_scorecard again; it")


def test_claims_name_each_other_by_their_titles():
    """Their numbers change with every claim that is put in before them."""
    named = [text for claim in entries() for text in (claim["says"], claim["limits"])]
    assert not [text for text in named if re.search(r"\bclaims? \d", text)]
    titles = {claim["title"] for claim in entries()}
    assert set(re.findall(r'"([A-Z][^"]{20,})"', " ".join(named))) <= titles
