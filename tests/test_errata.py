"""The page of possible errata: what stands on it is off, and off by what is said, and nothing else is."""

import re
from pathlib import Path

import pandas as pd
import pytest

from steerpaper.paper import errata
from steerpaper.paper.arithmetic import half_normal, paper_arithmetic
from steerpaper.paper.errata import arithmetic_csv, errata_page, possible_errata
from steerpaper.paper.page import results_page
from steerpaper.paper.tables import paper_tables

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def found():
    return possible_errata().set_index("point")


def rows(found, point):
    """What is printed and recomputed, by quantity."""
    return found.rows[point].set_index("quantity")[["printed", "recomputed"]].apply(tuple, axis=1)


def test_each_issue_is_one_entry(found):
    assert found.index.tolist() == ["1", "2", "4", "5", "6"]
    assert found.rows.map(len).tolist() == [2, 4, 2, 1, 1]  # however many rows an issue has
    assert errata_page().count("\n## ") == len(found) + 1


def test_table1_by_hand(found):
    drops = rows(found, "1")
    assert drops["average drop, svv, in points"] == ("53.75", f"{(35 + 60 + 86 + 38) / 4:g}")
    assert drops["SVV's drop, % of OV's"] == ("74.9", f"{100 * (219 / 4) / ((57 + 74 + 96 + 60) / 4):.1f}")
    cause = found.cause["1"]
    assert f"{100 * 53.75 / 71.75:.1f} % of 71.75" in cause and f"are {219 - 4 * 53.75:g} points more" in cause
    # "The order of the four averages stays what it is"
    printed = {"qk": 8.75, "mlp": 44.5, "svv": 53.75, "ov": 71.75}
    assert sorted(printed, key=printed.get) == sorted(printed, key=(printed | {"svv": 54.75}).get)


def test_table7_by_hand(found):
    """Llama from layer 12: n = 16 layers, H = 24 heads; every source up to a layer reaches its MLP."""
    into_mlp, into_logits = sum(1 + 24 * (i + 1) + i for i in range(16)), 1 + 24 * 16 + 16
    circuits = rows(found, "2").filter(like="edge circuit")
    assert len(circuits) == 3
    for n, (printed, recomputed) in zip((13500, 12000, 16500), circuits):
        assert printed == f"into_mlp: 46.62 % = {0.4662 * n:,.0f}; into_logits: 6.36 % = {0.0636 * n:,.0f}"
        assert recomputed == f"into_mlp: {into_mlp:,}; into_logits: {into_logits}" == "into_mlp: 3,400; into_logits: 401"
    assert f"about {int(min(3400 / 0.4662, 401 / 0.0636)):,} edges at most" in found.cause["2"]
    assert rows(found, "2")["llama-3.2-3b-instruct: different rows of three methods' circuits, at least 2"] == (
        "3 rows", "1 different")


def test_midpoints_by_hand(found):
    rule = rows(found, "4")
    assert rule["last of 10 midpoints in [0, 1]"] == ("1.05", "0.95")
    meant, printed = ([(i + 0.5) / 10 for i in steps] for steps in (range(10), range(1, 11)))
    assert rule["integral of x over [0, 1] by that rule"] == (f"{sum(printed) / 10:g}", f"{sum(meant) / 10:g}")
    assert f"gets {sum(printed) / 10:g} for the integral" in found.consequence["4"]
    assert [(i - 0.5) / 10 for i in range(1, 11)] == pytest.approx(meant)  # "would be the same"


def test_sparsities_by_hand(found):
    table = pd.read_csv(ROOT / "data" / "paper" / "table10_11_sparsity.csv")
    assert (table.sparsity_percent[table.threshold == 0] == 0).all()
    first = table.sparsity_percent[table.threshold == 0.1]
    (shown,) = rows(found, "5")
    assert shown[1] == f"at most 0.0%; at τ = 0.1 {first.min()}% to {first.max()}%" and (first.min(), first.max()) == (
        9.2, 11.6)
    curves = paper_tables()["table10_11_sparsity"].drop_duplicates(["model", "method", "threshold"])
    assert curves.groupby(["model", "method"]).ngroups == 6
    assert "within 1.7 points" in found.cause["5"]
    # Half of a normal distribution lies within 0.6745 of its scale, 95 % within 1.96, 68.27 % within one.
    known = pd.DataFrame({"threshold": [0, 0.6745, 1, 1.96], "sparsity": [0, 0.5, 0.6827, 0.95]})
    assert half_normal(known) == pytest.approx((1, 0), abs=1e-3)
    assert half_normal(known.assign(threshold=0.5 * known.threshold)) == pytest.approx((0.5, 0), abs=1e-3)
    assert half_normal(known.assign(sparsity=[0.5, 0.5, 0.5, 0.5]))[1] > 0.2


def test_positions_by_hand(found):
    (shown,) = rows(found, "6")
    assert shown == ("4 numbers", "3 different (harmless steered 6,864, harmless base 6,864)")
    others = (12056 / 9842, 24999 / 8114, 7322 / 1051, 6800 / 501, 17803 / 669)
    assert f"for the other 5 vectors the two numbers of harmless prompts differ by a factor of {min(others):.1f} to " \
           f"{max(others):.0f}." in found.cause["6"]
    assert "one data set out of 24" in found.consequence["6"]


def test_equal_rows_of_table_5_are_no_erratum(found):
    table = paper_arithmetic().set_index(["locator", "quantity"])
    row = table.loc["table 5", "llama-3.2-3b-instruct: different rows of three methods' circuits, at least 2"]
    assert row.recomputed == "2 different" and row.agrees == "yes"
    assert not any("table 5" in issue.locator.tolist() for issue in found.rows)


def test_the_page_says_it_as_a_colleague():
    page = errata_page()
    assert "*possible* errata" in page and "misread" in page
    assert not re.search(r"\b(wrong|error|mistake|impossible|fails?)\b", page, re.IGNORECASE)
    assert "{" not in page


def test_what_is_off_needs_words_and_words_need_something_off(monkeypatch):
    table = paper_arithmetic()
    monkeypatch.setattr(errata, "paper_arithmetic", lambda: table[table.point != "6"])
    with pytest.raises(ValueError, match=r"entries on the points \['1', '2', '4', '5', '6'\], .* '4', '5'\]: write one"):
        possible_errata()
    unknown = table.assign(agrees=table.agrees.mask(table.point == "3", "no"))
    monkeypatch.setattr(errata, "paper_arithmetic", lambda: unknown)
    with pytest.raises(ValueError, match="numbers do not agree on the points .*'3'"):
        possible_errata()


def test_results_only_count_and_link():
    section = re.search(r"^## The paper's own arithmetic\n\n(.*?)\n\n## ", results_page(), re.MULTILINE | re.DOTALL)[1]
    assert "\n" not in section and "5 [possible errata](docs/possible-errata.md)" in section
    assert "(data/paper_arithmetic.csv)" in section


def test_the_csv_holds_every_row():
    saved = pd.read_csv(ROOT / "data" / "paper_arithmetic.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(saved, paper_arithmetic())


def test_what_is_committed_is_current():
    for path, text in {"docs/possible-errata.md": errata_page(), "data/paper_arithmetic.csv": arithmetic_csv()}.items():
        assert (ROOT / path).read_bytes() == text.encode(), f"{path}: run python -m steerpaper.paper.page"
