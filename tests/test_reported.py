"""Claims, verdicts, the paper's numbers and arithmetic, and the pages made of them."""

import itertools
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
from steerpaper.paper import beside
from steerpaper.paper.arithmetic import paper_arithmetic
from steerpaper.paper.beside import reported_numbers, verdict_counts
from steerpaper.paper.claims import (
    VERDICTS, Check, Claim, Rule, cases, claims, effect_kept, reported_table, summary, verdict,
)
from steerpaper.paper.page import SHOWN, readme_table, results_page, with_scorecard
from steerpaper.paper.tables import (
    TEST_SETS, average_drop, paper_tables, paper_text, reported, sparsity_kept,
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
    frozen = {"none": 0, "qk": 0.05, "mlp": 0.2, "svv": 0.5, "ov": 0.7}
    sign = {"harmful": -1, "harmless": 1}
    ablations = [("dim", f, p, steered[p] + sign[p] * d) for f, d in frozen.items() for p in CLASSES]
    reach = {"gradient": 0.95, "indirect_effect": 0.95, "bottom_k": 0.8, "dropout": 0.4}
    sparsity = [
        (m, s, True, t, level, p, 1.0 * (p == "harmless"), steered[p] if level <= reach[s] else 0.5)
        for m in METHODS for s in reach for t, level in ((0, 0.0), (0.5, 0.4), (1, 0.8), (2, 0.95), (2.5, 0.99))
        for p in CLASSES
    ]
    circuits = [("circuit", 0.9), ("complement", 0.01), ("random, twice the size, draw 1", 0.05)]
    types = {"from_steering": 10.0, "from_attention_head": 70.0, "from_mlp": 20.0, "into_query": 5.0, "into_key": 1.0,
             "into_value": 34.0, "into_mlp": 45.0, "into_logits": 15.0}
    return {
        "table2_asr": asr_table(["method", "prompts"], asr),
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
        "fig3_minimum_faithful": pd.DataFrame({"method": METHODS, "n_edges": (100, 110, 120),
                                               "share": (0.1, 0.11, 0.12)}),
        "fig3_interchange": pd.DataFrame(
            [(a, b, p, 0.9, 0.88, 0.92) for a in METHODS for b in METHODS for p in ("both", *CLASSES)],
            columns=["vector", "circuit", "prompts", "faithfulness", "low", "high"]),
        "fig4_overlap": pd.DataFrame([(*pair, share, 0.95, share) for pair in PAIRS for share in (0.1, 0.5, 1.0)],
                                     columns=["method_a", "method_b", "share", "overlap", "chance"]),
        "table5_8_edge_types": pd.DataFrame([{"method": m, "edges": e, **types} for m in METHODS
                                             for e in ("circuit", "top")]),
        "table9_positions": pd.DataFrame({"metric": ["logit difference", "KL, threshold 0", "KL, threshold 1",
                                                     "KL, threshold 5"], "positions": [250, 1000, 200, 10]}),
        "table1_ablations": asr_table(["method", "frozen", "prompts"], ablations),
        "table1_average_drop": pd.DataFrame([("dim", f, 100 * d) for f, d in frozen.items() if f != "none"],
                                            columns=["method", "frozen", "drop_points"]),
        "ov_identity": pd.DataFrame([("dim", p, 5, head, 1e-5, True) for p in CLASSES for head in (0, 1)],
                                    columns=["method", "prompts", "layer", "head", "bound", "within"]),
        "svv_preference": pd.DataFrame([(s, m, *row) for s in ("refusal", "harm") for m in METHODS for row in
                                        (("SV", 0.6, 0.3, 0.7), ("L5H1", 0.8, 0.3, 0.7), ("SUM", 0.9, 0.3, 0.7),
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


def verdict_on(claim_id, tables):
    """The verdict on one claim by hand-made tables, through the derived ones where it needs them."""
    claim = next(claim for claim in claims() if claim.id == claim_id)
    kept = effect_kept(tables["table10_11_sparsity"].query("rescaled"))
    return verdict(cases(claim, (tables | {"sparsity_kept": kept}).get).met)


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


def test_verdicts():
    assert [verdict(met) for met in ([True, True], [True, False], [False], [])] == [
        "holds", "holds in part", "does not hold", "no case"]


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
    monkeypatch.setattr("steerpaper.paper.claims.paper_text", lambda: {"claims": [entry]})
    with pytest.raises(ValueError, match=f"claim 'mine'.*{message}"):
        claims()
    assert not list(tmp_path.iterdir())


def test_claims_read_tables_that_are_declared(monkeypatch):
    check = {"quantity": "q", "table": "table2_as", "value": "asr", "case": ["method"], "at_least": 0}
    entry = {"id": "mine", "title": "", "locator": "", "says": "", "limits": "", "checks": [check]}
    monkeypatch.setattr("steerpaper.paper.claims.paper_text", lambda: {"claims": [entry]})
    with pytest.raises(ValueError, match=r"table of claim 'mine' 'table2_as' \(did you mean 'table2_asr'\?\)"):
        claims()


def test_expressions_that_are_data_keep_their_meaning(monkeypatch):
    where = ["method in ['dim', 'ntp'] and not prompts == 'both'", "kind.str.contains('wi')",
             "0.2 <= asr < 0.9 or -asr > 1", "kept == kept.max()", "~method.duplicated()"]
    check = {"quantity": "q", "table": "table2_asr", "where": where, "value": "(asr - kept) / 2 + 1 * kept", "case": ["method"],
             "above": 0}
    entry = {"id": "mine", "title": "", "locator": "", "says": "", "limits": "", "checks": [check]}
    monkeypatch.setattr("steerpaper.paper.claims.paper_text", lambda: {"claims": [entry]})
    rows = [("dim", "x", "twice", 0.3, 1.0), ("dim", "x", "twice", 0.5, 1.0), ("ntp", "x", "twice", 0.6, 0.5),
            ("po", "x", "twice", 0.4, 1.0), ("dim", "both", "twice", 0.4, 1.0), ("ntp", "x", "once", 0.4, 2.0)]
    table = pd.DataFrame(rows, columns=["method", "prompts", "kind", "asr", "kept"])
    [claim] = claims()
    found = cases(claim, lambda name: table)
    assert found.case.tolist() == ["dim"] and found.value.tolist() == [pytest.approx(0.65)]


def test_a_missing_column_names_the_claim():
    check = Check("q", "t", "nothing", Rule("above", (0.0,)), case=("name",))
    claim = Claim("mine", "", "", "", "", (check,))
    with pytest.raises(ValueError, match="claim 'mine' needs a column that table 't' lacks .*it has name"):
        cases(claim, lambda name: pd.DataFrame({"name": ["a"]}))


def test_the_summary_shows_the_weakest_case():
    check = Check("q", "t", "v", Rule("at_least", (0.5,)), case=("name",), interval=("low", "high"))
    table = pd.DataFrame({"name": ["a", "b"], "v": [0.9, 0.6], "low": [0.8, 0.4], "high": [0.95, 0.7]})
    rows = cases(Claim("c", "", "", "", "", (check,)), lambda name: table)
    assert summary(rows) == "q: 0.6 to 0.9, weakest b with 0.6 (0.4 to 0.7)"
    assert rows.margin.tolist() == pytest.approx([0.4, 0.1])
    assert rows.clear.tolist() == [True, False]


# -- the claims --------------------------------------------------------------------------------------------

def test_claims_are_complete():
    found = claims()
    assert len({claim.id for claim in found}) == len({claim.title for claim in found}) == len(found)
    assert sum(claim.abstract for claim in found) == 8
    for claim in found:
        assert claim.limits and claim.locator and claim.says
        assert claim.reported or all(reported_table(model, check.table) is not None for check in claim.checks
                                     for model in ("gemma-2-2b-it", "llama-3.2-3b-instruct"))


@pytest.mark.parametrize("claim", [claim.id for claim in claims()])
def test_every_claim_holds_where_it_should(claim):
    assert verdict_on(claim, hand_made()) == "holds"


# Per claim a table, the column changed and its new value from the old one: everywhere, no case is left that meets its
# rule; in the first row that the claim looks at, some are.
BROKEN = {
    "effective": ("table2_asr", "asr", lambda t: 1 - t.asr.round(), "method == 'dim'"),
    "few-edges": ("fig3_interchange", "faithfulness", lambda t: 0.5, "vector == 'po'"),
    "interchangeable": ("fig3_interchange", "faithfulness", lambda t: 0.84, "vector == 'dim'"),
    "ov-not-qk": ("table1_average_drop", "drop_points", lambda t: 40, "frozen == 'ov'"),
    "qk-drop": ("table1_average_drop", "drop_points", lambda t: 13.5, None),
    "svv-concepts": ("svv_preference", "preference", lambda t: 0.1, "vector == 'SUM'"),
    "sparse": ("table10_11_sparsity", "asr", lambda t: t.asr.where(t.sparsity < 0.9, t.unsteered), None),
    "agree": ("fig7_agreement", "p", lambda t: 0.06, "threshold == 1"),
    "unsteered": ("table2_asr", "asr", lambda t: 0.5, "prompts == 'harmful'"),
    "cosines": ("cosines", "cosine", lambda t: -0.1, "method_a == 'ntp'"),
    "overlap": ("fig4_overlap", "overlap", lambda t: 0.8, "method_b == 'ntp'"),
    "complement": ("minimum_faithful", "faithfulness", lambda t: -0.2, "prompts == 'harmful'"),
    "random-circuit": ("minimum_faithful", "faithfulness", lambda t: 0.1, "prompts == 'harmful'"),
    "edge-types": ("table5_8_edge_types", "into_query", lambda t: 40.0, "edges == 'top'"),
    "order-of-drops": ("table1_average_drop", "drop_points", lambda t: 5.0, "frozen == 'svv'"),
    "svv-share": ("table1_average_drop", "drop_points", lambda t: t.drop_points.where(t.frozen != "svv", 30), None),
    "ov-identity": ("ov_identity", "within", lambda t: False, "prompts == 'harmful'"),
    "sparse-each": ("table10_11_sparsity", "asr", lambda t: t.asr.where(t.sparsity < 0.7, t.unsteered),
                    "method == 'po'"),
    "baselines": ("table10_11_sparsity", "asr", lambda t: np.where(t.prompts == "harmful", 0.9, 0.0), "method == 'po'"),
    "order-of-sparsifiers": ("table10_11_sparsity", "asr", lambda t: np.where(t.prompts == "harmful", 0.9, 0.0),
                             "method == 'po'"),
    "tiny-p": ("fig7_agreement", "p", lambda t: 1e-9, "threshold == 1"),
}
# What one table cannot break altogether.
ONLY_IN_PART = {"few-edges", "agree", "edge-types"}


@pytest.mark.parametrize("claim", [claim.id for claim in claims()])
def test_every_claim_can_fail(claim):
    name, column, new, some = BROKEN[claim]
    tables = hand_made()
    whole = tables[name].assign(**{column: lambda t: new(t)})
    assert verdict_on(claim, tables | {name: whole}) == ("holds in part" if claim in ONLY_IN_PART else "does not hold")
    if some:
        rows = whole.index.isin(tables[name].query(some).index)
        part = tables[name].assign(**{column: np.where(rows, whole[column], tables[name][column])})
        assert verdict_on(claim, tables | {name: part}) == "holds in part"


@pytest.mark.parametrize("claim", [claim.id for claim in claims()])
def test_a_method_of_one_s_own_changes_no_verdict(claim):
    """A method "mine", absurd in every number, beside those of the paper in every table that tells methods apart."""
    tables, found = hand_made(), set()
    for name, table in tables.items():
        for column in {"method", "method_a", "method_b", "vector", "circuit"} & set(table):
            if (rows := table[table[column].isin(METHODS)]).empty:
                continue
            labels = {"threshold", "sparsity", "sparsity_a", "sparsity_b"}
            wrong = {measured: -1e6 for measured in rows.select_dtypes("float") if measured not in labels}
            wrong |= {flag: False for flag in rows.select_dtypes("bool") if flag != "rescaled"}
            mine = rows.assign(**{column: "mine"}, **wrong).drop_duplicates()
            tables[name] = pd.concat([tables[name], mine, mine.assign(**{key: 1e6 for key in wrong if key != "within"})])
            found.add(name)
    assert {"svv_preference", "fig7_agreement", "ov_identity", "fig3_interchange", "table2_asr"} <= found
    assert verdict_on(claim, tables) == "holds"


# Claims whose rules the paper's own tables do not meet, by model.
NOT_BORNE_OUT = {"order-of-drops": {"llama-3.2-3b-instruct"}, "baselines": {"gemma-2-2b-it", "llama-3.2-3b-instruct"}}


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim.id)
def test_the_paper_s_own_numbers_meet_the_limits(claim):
    for model in ("gemma-2-2b-it", "llama-3.2-3b-instruct"):
        expected = {"holds in part"} if model in NOT_BORNE_OUT.get(claim.id, ()) else {"holds", "stated"}
        assert as_reported(claim, model)[0] in expected


@pytest.mark.parametrize("claim", ["effective", "few-edges", "ov-not-qk", "qk-drop", "unsteered", "edge-types",
                                   "sparse-each"])
def test_limits_are_the_paper_s_least_favourable_numbers(claim):
    claim = next(one for one in claims() if one.id == claim)
    models = ("gemma-2-2b-it", "llama-3.2-3b-instruct")
    rows = pd.concat(cases(claim, partial(reported_table, model)) for model in models)
    limits = {check.quantity: check.rule.limits[0] for check in claim.checks}
    # Two per cent of a limit: what rounding to the digits printed may give away (10.8 to 11, 0.167 to 0.17).
    least = rows.groupby("quantity").margin.min()
    assert all(-1e-9 <= margin <= 0.02 * limits[name] for name, margin in least.items())


def test_one_case_where_methods_tie():
    claim = next(one for one in claims() if one.id == "sparse")
    tables = hand_made()
    kept = effect_kept(tables["table10_11_sparsity"].query("rescaled"))
    rows = cases(claim, {"sparsity_kept": kept}.get)
    assert rows.value.tolist() == [0.95] and rows.case.tolist() == ["gradient"]


def test_nothing_left_is_no_comparison():
    tables = hand_made()
    empty = tables["fig7_agreement"].assign(sparsity_b=1.0, iou=0.0, chance=0.0, p=1.0, threshold=2.5)
    tables["fig7_agreement"] = pd.concat([tables["fig7_agreement"], empty])
    assert verdict_on("agree", tables) == verdict_on("tiny-p", tables) == "holds"


def test_undefined_values_do_not_hold():
    tables = hand_made()
    tables["table1_average_drop"] = tables["table1_average_drop"].assign(drop_points=0.0)
    assert verdict_on("svv-share", tables) == "does not hold"


def test_no_rows_are_no_case():
    tables = hand_made()
    tables["fig7_agreement"] = tables["fig7_agreement"].assign(sparsity_a=0.1)
    assert verdict_on("tiny-p", tables) == "no case"
    tables["svv_preference"] = tables["svv_preference"].assign(vector="SV", scale="to count")  # nothing to spread
    assert verdict_on("svv-concepts", tables) == "no case"


def test_sparsity_kept_by_hand():
    rows = [("dim", "gradient", p, s, asr, float(p == "harmless"))
            for p, values in (("harmful", (1.0, 0.9, 0.79, 0.9)), ("harmless", (0.0, 0.2, 0.0, 0.0)))
            for s, asr in zip((0.0, 0.5, 0.8, 0.9), values)]
    rows += [("po", "gradient", p, s, 0.5, 0.5) for p in CLASSES for s in (0.0, 0.5)]  # no effect to keep
    table = pd.DataFrame(rows, columns=["method", "sparsifier", "prompts", "sparsity", "asr", "unsteered"])
    kept = sparsity_kept(table, 0.8)
    curves = [("dim", "harmful"), ("dim", "harmless"), ("po", "harmful"), ("po", "harmless")]
    assert list(zip(kept.method, kept.prompts)) == curves and kept.kept.tolist() == [0.5, 0.9, 0.0, 0.0]
    assert sparsity_kept(table, 0.79).kept.tolist() == [0.9, 0.9, 0.0, 0.0]
    assert sparsity_kept(table, 0.85).kept.tolist() == [0.5, 0.0, 0.0, 0.0]
    assert effect_kept(table).kept.tolist() == [0.5, 0.0]  # on both sets of prompts
    again = table.query("sparsity == 0.5 and method == 'dim'").assign(asr=0.5)  # one of two at a sparsity fails
    assert sparsity_kept(pd.concat([table, again]), 0.8).kept.tolist() == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("preset", ["organism-gemma2", "organism-llama"])
def test_both_shares_of_the_effect_are_those_of_the_record(preset):
    """Claims name theirs in words, and notebook 05's table is of the other."""
    most, nearly_all = paper_text()["effect_kept"].values()
    named = [check.quantity for claim in claims() for check in claim.checks if " of the effect" in check.quantity]
    assert len(named) == 3 and all(f"keeps {most} of the effect" in quantity for quantity in named)
    record = paths.recorded_results(preset)
    rates = [pd.read_csv(record / f"{name}.csv") for name in ("table10_11_sparsity", "table10_11_second_set")]
    saved = pd.read_csv(record / "sparsity_for_90.csv").rename(columns={"sparsity": "kept"}).drop(columns="dimensions")
    kept = sparsity_kept(pd.concat(rates, ignore_index=True), nearly_all)
    on_all = kept.groupby(["method", "sparsifier", "rescaled"], as_index=False).kept.min().assign(prompts="all three")
    keys = ["method", "sparsifier", "rescaled", "prompts"]
    found, saved = (table.set_index(keys).sort_index() for table in (pd.concat([kept, on_all]), saved))
    pd.testing.assert_frame_equal(found, saved)


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
    assert (row.reported, row.measured, row.low, row.high, row.note) == ("0.09", "0.7", "0.65", "0.75", "")
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


def test_numbers_agree_within_our_interval(results):
    results("tiny", hand_made())
    numbers = reported_numbers("tiny").set_index(["source", "model", "quantity"])
    one = numbers.xs("llama-3.2-3b-instruct", level="model").verdict
    assert one["table2_asr", "dim, jailbreakbench: asr"] == "agrees"  # 0.85, ours 0.85 to 0.95
    assert one["table2_asr", "po, jailbreakbench: asr"] == "differs"  # 0.81
    assert one["table2_asr", "dim, alpaca: asr"] == "agrees"  # 0.03, ours -0.05 to 0.05
    assert one["table5_outgoing_circuit", "dim, circuit, from_mlp: percent"] == ""  # no interval
    assert set(numbers.verdict[numbers.low == ""]) == {""} and "" not in set(numbers.verdict[numbers.low != ""])
    counts = verdict_counts(numbers.reset_index()).set_index(["locator", "model"])
    # Gemma: all harmless ones, harmful ones without steering (0 and 0.013), and dim on StrongREJECT (0.85).
    assert counts.loc[("table 2", "gemma-2-2b-it")].tolist() == [7, 5]
    assert verdict_counts(reported_numbers()).empty


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
    pd.testing.assert_frame_equal(drops, pd.read_csv(record / "table1_average_drop.csv"))


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
    # Intervals of 0.05 around 0 and 1, where the limits are 0.03, 0.035 and 0.99.
    assert card.set_index("claim").close.loc[lambda close: close > 0].to_dict() == {"effective": 3, "unsteered": 2}


def test_the_scorecard_counts_close_cases(results):
    tables = hand_made()
    tables["minimum_faithful"] = tables["minimum_faithful"].assign(high=lambda table: table.high + 0.04)
    results("tiny", tables)
    card, rows = scorecard("tiny")
    # Of the complement 0.01 (to 0.07) is clearly within 0.1, of random circuits 0.05 (to 0.11) not clearly below.
    assert card.set_index("claim").close[["complement", "random-circuit"]].tolist() == [0, 2]
    assert rows[rows.claim == "random-circuit"].clear.tolist() == [False, False]


def test_a_scorecard_needs_every_table(results):
    tables = hand_made()
    del tables["ov_identity"]
    results("tiny", tables)
    with pytest.raises(FileNotFoundError, match="run notebook 04_ov_decomposition with preset 'tiny'"):
        scorecard("tiny")


def save_scorecard(results, preset, tables):
    results(preset, tables)
    card, rows = scorecard(preset)
    numbers = reported_numbers(preset)
    results(preset, {"scorecard_claims": card, "scorecard_cases": rows, "scorecard_numbers": numbers})
    return card


def test_nothing_run_says_not_run(results):
    page = results_page()
    lines = [line for line in page.splitlines() if line.startswith("| 1. Steering works")]
    assert lines == ["| 1. Steering works, by all three methods | holds | holds |" + " not run |" * len(SHOWN)]


def test_the_page_shows_every_claim_model_and_number(results):
    tables = hand_made()
    tables["table1_average_drop"] = tables["table1_average_drop"].replace({"drop_points": {70.0: 40.0}})
    save_scorecard(results, "organism-gemma2", tables)
    page = results_page()
    row = next(line for line in page.splitlines() if line.startswith("| 4. Steering acts"))
    assert row.split(" | ")[1:] == ["holds", "holds", "not run", "**holds in part** (1/2)", "not run", "not run |"]
    for claim in claims():
        assert claim.title in page and claim.limits in page and all(c.rule.words in page for c in claim.checks)
    assert "| dim, mlp, jailbreakbench: asr | 0.57 | 0.09 | not run | 0.7 (0.65 to 0.75) | not run | not run |" in page
    counts = verdict_counts(reported_numbers("organism-gemma2"))
    for row in counts.itertuples():
        assert f"| {row.locator} | {row.model} | organism-gemma2 | {row.agrees} | {row.differs} |" in page
    assert "* pairwise cosine: **from 0 to 0.42** (no interval)\n" in page
    assert "* ASR on harmful prompts under −α: **at least 0.8**\n" in page
    widths = [{line.replace("\\|", "").count("|") for line in group} for outside, group in
              ((key, list(group)) for key, group in itertools.groupby(page.splitlines(), lambda x: x.startswith("|")))
              if outside]
    assert all(len(width) == 1 for width in widths)


def test_a_claim_that_a_scorecard_lacks_is_not_run(results):
    card = save_scorecard(results, "organism-llama", hand_made())
    results("organism-llama", {"scorecard_claims": card[card.claim != "effective"]})
    assert next(line for line in results_page().splitlines() if line.startswith("| 1. ")).count("not run") == 4


def test_a_scorecard_of_other_rules_is_refused(results):
    card = save_scorecard(results, "organism-llama", hand_made())
    results("organism-llama", {"scorecard_claims": card.assign(rule=card.rule.replace("0.8", "0.7", regex=True))})
    with pytest.raises(ValueError, match="'organism-llama' was made with other claims .* run notebook 06_scorecard"):
        results_page()


def test_the_scorecard_goes_between_the_readme_s_markers(results):
    text = "before\n<!-- scorecard -->\nold\n<!-- /scorecard -->\nafter\n"
    new = with_scorecard(text)
    assert new == f"before\n<!-- scorecard -->\n{readme_table()}\n<!-- /scorecard -->\nafter\n"
    assert with_scorecard(new) == new and with_scorecard("no markers") == "no markers"
    assert readme_table().count("\n") == 1 + sum(claim.abstract for claim in claims())
    for broken in ("<!-- scorecard -->", "<!-- /scorecard --> <!-- scorecard -->", text + text):
        with pytest.raises(ValueError, match="one pair of markers"):
            with_scorecard(broken)


def test_as_reported_combines_numbers_and_words():
    few = next(claim for claim in claims() if claim.id == "few-edges")
    assert as_reported(few, "gemma-2-2b-it")[0] == "holds"
    words = as_reported(few, "gemma-2-2b-it")[1]
    assert words.startswith("share of edges in the minimum-faithful circuit: 0.102; faithfulness at least 0.85")
    overlap = next(claim for claim in claims() if claim.id == "overlap")
    assert as_reported(overlap, "gemma-2-2b-it") == ("stated", "about 0.9 or more")


# -- what is committed -------------------------------------------------------------------------------------

def test_results_page_is_current():
    assert (ROOT / "RESULTS.md").read_text(encoding="utf-8") == results_page(), "run python -m steerpaper.paper.page"


def test_readme_is_current():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_scorecard(readme) == readme, "run python -m steerpaper.paper.page"


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
