"""Differences of faithfulness: against plain loops over the same draws, by hand, and from runs of a model."""

import numpy as np
import pandas as pd
import pytest
from test_patching import data_of

from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.curves import faithfulness_by_class, top_circuits
from steerpaper.circuits.differences import differences
from steerpaper.circuits.recovery import Faithfulness

ENDS = ["difference", "difference_low", "difference_high", "other_share", "other_share_low", "other_share_high"]
# Eight prompts of one set, the first three of them with two responses, and three of another.
LABELS = pd.DataFrame({"prompts": ["harmful"] * 11 + ["harmless"] * 3,
                       "prompt": [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 0, 1, 2]})


def results():
    """Three circuits on the same responses, with one to three unmasked positions each; of response 6 all is masked."""
    rng = np.random.default_rng(4)
    places = [(response, position) for response in LABELS.index.drop(6) for position in range(1 + response % 3)]
    table = pd.DataFrame(places, columns=["response", "position"])
    table["m_base"] = -rng.uniform(1, 3, len(table))
    table["m_steered"] = rng.uniform(1, 3, len(table))
    hard = rng.uniform(-0.3, 0.3, len(LABELS))[table.response]  # for whichever circuit
    shares = {"method": 0.8 + hard, "random vector": 0.5 + hard, "nothing": 0.02 + hard / 20}
    return pd.Series({name: Faithfulness(table.assign(m_circuit=table.m_base + share * (table.m_steered - table.m_base)))
                      for name, share in shares.items()}).rename_axis("circuit")


def by_hand(one, other, wanted, seed):
    """Both statistics over prompts drawn anew, each with all its responses, in plain loops."""
    tables = [result.table[result.table.response.isin(wanted.index)] for result in (one, other)]
    prompts = sorted({(wanted.prompts[i], wanted.prompt[i]) for i in tables[0].response})
    sums = []
    for prompt in prompts:
        own = [i for i in wanted.index if (wanted.prompts[i], wanted.prompt[i]) == prompt]
        rows = [table[table.response.isin(own)] for table in tables]
        sums.append([rows[0].m_base.sum(), rows[0].m_circuit.sum(), rows[0].m_steered.sum(), rows[1].m_circuit.sum()])
    draws = np.random.default_rng(seed).integers(len(sums), size=(2000, len(sums)))
    found = []
    for draw in [range(len(sums)), *draws]:
        base, here, steered, there = np.sum([sums[i] for i in draw], axis=0)
        found.append(((here - there) / (steered - base), (there - base) / (here - base)))
    value, *drawn = found
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return [value[0], low[0], high[0], value[1], low[1], high[1]]


@pytest.mark.parametrize("seed", [0, 7])
def test_differences_are_those_of_plain_loops(seed):
    found = results()
    table = differences(found, "random vector", LABELS, "both", seed=seed)
    assert list(table) == ["circuit", "prompts", *ENDS]
    assert table.circuit.tolist() == [name for name in found.index for _ in range(3)]
    assert table.prompts.tolist() == ["both", "harmful", "harmless"] * 3
    for row in table[table.circuit == "method"].to_dict("records"):
        own = LABELS if row["prompts"] == "both" else LABELS[LABELS.prompts == row["prompts"]]
        expected = by_hand(found["method"], found["random vector"], own, seed)
        assert [row[name] for name in ENDS] == pytest.approx(expected, rel=1e-9)


def test_a_paired_interval_excludes_what_the_two_intervals_cannot():
    found = results()
    row = differences(found, "random vector", LABELS, "both").iloc[0]
    assert row.difference == pytest.approx(found["method"].value - found["random vector"].value)
    assert row.difference == pytest.approx(0.3) and 0 < row.difference_low <= row.difference_high
    assert row.difference_high - row.difference_low < 0.01  # what makes a prompt hard does so for both
    ends = {name: found[name].interval() for name in ("method", "random vector")}
    assert min(high - low for low, high in ends.values()) > 0.1


def test_what_is_drawn_are_prompts_and_not_their_responses():
    """Responses to a prompt that all say the same are one draw, however many there are."""
    found = results()
    table = found["method"].table[lambda t: t.response.isin([0, 1, 2])]
    again = pd.concat([table.assign(response=table.response + 3 * k) for k in range(4)], ignore_index=True)
    sets = {}
    for name, rows in {"once": table.reset_index(drop=True), "often": again}.items():
        other = rows.assign(m_circuit=rows.m_base + (0.2 + 0.2 * (rows.response % 3)) * (rows.m_steered - rows.m_base))
        labels = pd.DataFrame({"prompts": "harmful", "prompt": np.arange(12) % 3})
        both = pd.Series({"one": Faithfulness(rows), "other": Faithfulness(other)}).rename_axis("circuit")
        sets[name] = differences(both, "other", labels)[ENDS]
    pd.testing.assert_frame_equal(sets["once"], sets["often"])


def test_a_circuit_beside_itself_and_one_that_carries_nothing():
    table = differences(results(), "random vector", LABELS).set_index(["circuit", "prompts"])[ENDS]
    assert table.loc["random vector", "harmful"].tolist() == [0, 0, 0, 1, 1, 1]
    nothing = table.loc["nothing", "harmful"]
    assert nothing.difference_high < 0 and nothing[ENDS[3:]].isna().all()
    alone = differences(results(), "random vector", LABELS.assign(prompt=0)).iloc[0]
    assert alone.difference > 0.2 and np.isnan(alone.difference_low) and np.isnan(alone.other_share_high)


def test_what_cannot_be_compared_is_refused():
    found = results()
    with pytest.raises(ValueError, match=r"unknown circuit to compare with 'random' \(did you mean 'random vector'"):
        differences(found, "random", LABELS)
    with pytest.raises(ValueError, match="responses without a label"):
        differences(found, "random vector", LABELS[:9])
    for table in (found["method"].table[:-1], found["method"].table.assign(m_steered=lambda t: t.m_steered + 1)):
        other = pd.Series({**found, "other": Faithfulness(table)}).rename_axis("circuit")
        with pytest.raises(ValueError, match="other was not measured on the responses of the first circuit"):
            differences(other, "method", LABELS)
    index = pd.MultiIndex.from_tuples([("all", 0.1), ("one", 0.2)], names=["ranked_on", "share"])
    with pytest.raises(ValueError, match=r"there is no \('one', 0.1\) to compare \('all', 0.1\) with"):
        differences(pd.Series(list(found[:2]), index), "one", LABELS)


def test_tables_by_class_have_the_difference_of_circuits_of_one_size(model):
    data = data_of(model)
    rankings = {"all": attribute(model, data.responses, data.steerings, steps=2),
                "one": attribute(model, data.responses[:1], data.steerings[:1], steps=1)}
    circuits = top_circuits(rankings, (0.1, 0.4), "ranked_on")
    table = faithfulness_by_class(model, circuits, data, both=True, against="one")
    plain = faithfulness_by_class(model, circuits, data, both=True)
    pd.testing.assert_frame_equal(table[plain.columns], plain)
    keys = ["share", "prompts"]
    one, other = (plain[plain.ranked_on == name].set_index(keys).faithfulness for name in ("all", "one"))
    rows = table[table.ranked_on == "all"].set_index(keys)
    pd.testing.assert_series_equal(rows.difference, one - other, check_names=False)
    assert (rows.difference_low <= rows.difference_high).all() and rows.difference.abs().max() > 0
