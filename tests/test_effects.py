"""What steering does to answers, and what a freeze leaves of it, by hand."""

import numpy as np
import pandas as pd
import pytest

from steerpaper.behaviour import effects
from steerpaper.steering import Steering


def rows(**asr):
    """A table of one model and method on harmful prompts, by frozen part; `base` is the unsteered model."""
    table = pd.DataFrame([("toy", "none" if name == "base" else "dim", "none" if name == "base" else name, "harmful",
                           value, value - 0.1, value + 0.1) for name, value in asr.items()],
                         columns=["model", "method", "frozen", "prompts", "asr", "asr_low", "asr_high"])
    return table


def test_share_undone_counts_from_steered_to_unsteered():
    shares = effects.share_undone(rows(base=0.0, none=0.8, qk=0.8, ov=0.0, mlp=0.6)).set_index("frozen")
    assert shares.undone.to_dict() == pytest.approx({"qk": 0.0, "ov": 1.0, "mlp": 0.25})
    assert (shares.low["mlp"], shares.high["mlp"]) == pytest.approx((0.125, 0.375))  # 0.7 and 0.5 on this scale


def test_share_undone_where_steering_lowers_asr():
    shares = effects.share_undone(rows(base=1.0, none=0.2, ov=0.4))
    assert shares.undone.item() == pytest.approx(0.25)
    assert (shares.low.item(), shares.high.item()) == pytest.approx((0.125, 0.375))


def test_share_undone_of_too_little_steering_is_missing():
    shares = effects.share_undone(rows(base=0.0, none=0.4, qk=0.2), least=0.4)
    assert shares.undone.tolist() == pytest.approx([0.5])
    assert effects.share_undone(rows(base=0.8, none=0.4, qk=0.2), least=0.5).undone.isna().all()


def test_half_of_the_prompts_are_half_whatever_is_subtracted():
    for low in range(13):
        table = rows(base=low / 24, none=(low + 12) / 24, qk=low / 24)
        assert effects.share_undone(table, least=0.5).undone.tolist() == pytest.approx([1.0]), low


def test_layers_are_compared_by_what_steers_at_all_of_them():
    keys = ["preset", "layer", "method", "frozen", "prompts", "undone"]
    kept = [("a", layer, "po", kind, "harmful", 0.1 * layer) for layer in (1, 3) for kind in ("qk", "ov")]
    kept += [("b", 2, "dim", "qk", "harmful", 0.0)]
    left = [("a", 1, "po", "qk", "harmless", 0.2), ("a", 3, "dim", "ov", "harmful", 0.3),
            ("a", 1, "ntp", "ov", "harmful", 0.4), ("a", 3, "ntp", "ov", "harmful", np.nan)]
    found = effects.at_every_layer(pd.DataFrame([*left, *kept], columns=keys))
    assert list(found.itertuples(index=False, name=None)) == kept


def test_share_undone_of_no_steering_is_missing():
    assert effects.share_undone(rows(base=0.5, none=0.5, ov=0.4)).undone.isna().all()


def test_share_undone_takes_each_model_by_itself_and_needs_no_intervals():
    paper = rows(base=0.0, none=0.5, ov=0.25).drop(columns=["asr_low", "asr_high"]).assign(model="paper")
    shares = effects.share_undone(pd.concat([rows(base=0.0, none=1.0, ov=0.25), paper])).set_index("model")
    assert shares.undone.to_dict() == pytest.approx({"toy": 0.75, "paper": 0.5})
    assert np.isnan(shares.low["paper"])


def test_shared_start_ends_at_the_first_difference():
    answers = pd.DataFrame({
        "prompts": "harmful", "prompt": ["a", "b"] * 3, "run": ["steered"] * 2 + ["qk"] * 2 + ["base"] * 2,
        "completion": [[1, 2, 3, 4], [5, 6], [1, 2, 9, 4], [5, 6], [7], [5]],
    })
    table = effects.shared_start(answers, "steered")
    assert list(table.run) == ["qk", "base"]
    assert list(table.shared) == pytest.approx([(0.5 + 1) / 2, (0 + 0.5) / 2])
    assert list(table.identical) == [0.5, 0.0]


def test_judged_both_ways_gives_every_class_its_sign(monkeypatch):
    asked = []

    def judged(model, prompts, steerings, frozen, layers, **how):
        asked.append([given and given.coefficient for given in steerings])
        return pd.concat([prompts.assign(run=run) for run in range(len(steerings))], ignore_index=True)

    monkeypatch.setattr(effects, "judged_responses", judged)
    prompts = {name: pd.DataFrame({"prompt": [name]}) for name in ("harmful", "harmless")}
    table = effects.judged_both_ways(None, prompts, {"none": None, "dim": Steering(None, 3, 0.7)})
    assert asked == [[None, -0.7], [None, 0.7]]
    assert list(table.method) == ["none", "dim"] * 2
    assert list(table.coefficient) == [0.0, -0.7, 0.0, 0.7]
    assert list(table.prompts) == list(table.prompt)


def test_judged_both_ways_of_one_class_and_of_none(monkeypatch):
    monkeypatch.setattr(effects, "judged_responses", lambda model, prompts, steerings, *rest, **how: pd.concat(
        [prompts.assign(run=run) for run in range(len(steerings))], ignore_index=True))
    one = {"harmless": pd.DataFrame({"prompt": ["a"]})}
    table = effects.judged_both_ways(None, one, {"none": None, "dim": Steering(None, 3, 0.7)})
    assert table.prompts.tolist() == ["harmless"] * 2 and table.coefficient.tolist() == [0.0, 0.7]
    for wrong in ({"harmles": one["harmless"]}, {}):
        with pytest.raises(ValueError, match="set of prompts.*harmful, harmless"):
            effects.judged_both_ways(None, wrong, {"none": None})


def answers(shift, prompts, **runs):
    """Answers of several methods to prompts 0, 1, ...: R for a refusal, A for an answer."""
    return pd.DataFrame([(shift, prompts, method, f"prompt {i}", said == "R", True)
                         for method, spelt in runs.items() for i, said in enumerate(spelt)],
                        columns=["shift", "prompts", "method", "prompt", "expressed", "clean"])


def test_turned_counts_prompts_that_the_unsteered_model_treats_as_their_set_says():
    judged = pd.concat([answers("plain", "harmful", none="RRRA", dim="AARA"),
                        answers("plain", "harmless", none="AAAA", dim="RRRA"),
                        answers("raw", "harmful", none="AAAA", dim="RAAA")])
    table = effects.turned(judged, ["shift"]).set_index(["shift", "prompts", "method"])
    assert table.index.tolist() == [(shift, prompts, method) for shift, prompts in (
        ("plain", "harmful"), ("plain", "harmless"), ("raw", "harmful")) for method in ("none", "dim")]
    own = table.loc["plain", "harmful", "dim"]
    assert (own.asr, own.unsteered, own.right, own.turned) == (0.75, 0.25, 3, pytest.approx(2 / 3))
    assert (own.turned_low, own.turned_high) == pytest.approx(effects.wilson_interval(2, 3))
    own = table.loc["plain", "harmless", "dim"]
    assert (own.asr, own.unsteered, own.right, own.turned) == (0.25, 1.0, 4, 0.75)
    own = table.loc["raw", "harmful", "dim"]  # nothing to turn: a rate, and no share
    assert (own.asr, own.unsteered, own.right) == (0.75, 1.0, 0) and np.isnan(own.turned)
    assert table.xs("none", level="method").turned.isna().all()


def test_turned_goes_prompt_by_prompt_and_needs_the_unsteered_model():
    """Equal rates before and after may be other prompts."""
    judged = answers("plain", "harmful", none="RA", dim="AR")
    row = effects.turned(judged, ["shift"]).query("method == 'dim'").iloc[0]
    assert row.asr == row.unsteered == 0.5 and row.turned == 1.0
    with pytest.raises(ValueError, match="no answers of the unsteered model: add the method \"none\" to dim"):
        effects.turned(judged[judged.method == "dim"], ["shift"])
