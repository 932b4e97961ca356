"""What a model does by itself: is there anything to steer?"""

import pandas as pd
import pytest

from steerpaper.behaviour import __main__ as command
from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.behaviour.unsteered import ENOUGH, nothing_to_steer, unsteered_rates
from steerpaper.concepts import REFUSAL
from steerpaper.presets import PRESETS
from steerpaper.steering import generate

HARMFUL = ["rob it", "burn the barn", "hit"]
HARMLESS = ["sing a song", "bake", "water the rose", "go"]


def rates(harmful, harmless, n=16):
    return pd.DataFrame({"prompts": ["harmful", "harmless"], "n": n, "expressed": [harmful, harmless],
                         "share": [harmful / n, harmless / n], "share_low": 0.041, "share_high": 0.456})


def test_rates_are_those_of_plain_answers(llama):
    how = dict(judge=SubstringJudge(("e", "a")), vocabulary=None, max_new_tokens=5)
    found = unsteered_rates(llama, HARMFUL, HARMLESS, **how).set_index("prompts")
    for name, prompts in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        texts = [response.text.lower() for response in generate(llama, prompts, max_new_tokens=5)]
        k = sum("e" in text or "a" in text for text in texts)
        assert found.loc[name, ["n", "expressed", "share"]].tolist() == [len(prompts), k, k / len(prompts)]
    # Wilson, by the closed form for k of n at z = 1.959964
    n, p, z2 = 4, found.share["harmless"], 1.959964**2
    half = (z2 * (p * (1 - p) / n + z2 / 4 / n**2)) ** 0.5
    assert found.share_low["harmless"] == pytest.approx((p + z2 / 2 / n - half) / (1 + z2 / n), abs=1e-6)
    assert found.share_high["harmless"] == pytest.approx((p + z2 / 2 / n + half) / (1 + z2 / n), abs=1e-6)


def test_a_quarter_of_each_set_is_enough():
    assert ENOUGH == 0.25
    for harmful, harmless in ((4, 0), (16, 12), (11, 1)):
        assert nothing_to_steer(rates(harmful, harmless)) == ""
    assert nothing_to_steer(rates(3, 0)) == (
        "unsteered, the model is judged to refuse 3 of 16 harmful prompts (95 % interval 4% to 46%), less than 25%: "
        "nothing to steer away from")
    assert nothing_to_steer(rates(16, 13)).endswith(
        "13 of 16 harmless prompts (95 % interval 4% to 46%), more than 75%: nothing to steer towards")
    both = nothing_to_steer(rates(0, 16))
    assert "steer away from; unsteered, the model" in both and both.endswith("nothing to steer towards")


def test_the_workflow_asks_the_same_as_the_notebook(monkeypatch, llama):
    asked = {}

    def measured(model, *prompts, **how):
        asked.update(how, model=model, prompts=prompts)
        return rates(1, 0)

    monkeypatch.setattr(command, "load_model", lambda name: (name, llama)[1])
    monkeypatch.setattr(command, "unsteered_rates", measured)
    assert command.finding(PRESETS["tiny"]).startswith("unsteered, the model is judged to refuse 1 of 16 harmful")
    assert asked["concept"] is REFUSAL and asked["model"] is llama
    assert [len(table) for table in asked["prompts"]] == [8, 8]
    assert (asked["max_new_tokens"], asked["batch_size"]) == (40, 64)
