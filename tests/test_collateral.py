"""Side effects: against a plain Hugging Face forward, and by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_runs import RESPONSES, steering_for

from steerpaper.behaviour import collateral
from steerpaper.behaviour.collateral import answer_effects, harmless_texts, judged_at_both_signs, text_effects
from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.behaviour.judging import wilson_interval
from steerpaper.models.responses import Response
from steerpaper.presets import get_preset
from steerpaper.steering import Steering

LAYER = 2


@torch.no_grad()
def log_probabilities(plain, response, addition):
    """Of every token of the text, [token, vocab], with `addition` on the stream that enters the layer."""
    def add(module, args):
        return (args[0] + addition, *args[1:])
    hook = plain.model.layers[LAYER].register_forward_pre_hook(add)
    logits = plain(torch.tensor([response.tokens])).logits[0, len(response.prompt) - 1:-1]
    hook.remove()
    return logits.double().log_softmax(-1)


def test_text_effects_are_those_of_a_plain_forward(model, plain):
    steering = steering_for(model, LAYER, coefficient=0.5)
    table = text_effects(model, RESPONSES, {"dim": steering}, batch_size=2).set_index(["method", "sign", "measure"])
    for key, alpha in ((("none", 0), 0.0), (("dim", -1), -0.5), (("dim", 1), 0.5)):
        kl, loss = [], []
        for response in RESPONSES:
            base, own = (log_probabilities(plain, response, a * steering.vector) for a in (0.0, alpha))
            kl += (base.exp() * (base - own)).sum(-1).tolist()
            loss += [-row[token].item() for row, token in zip(own, response.completion)]
        assert table.value[*key, "kl"] == pytest.approx(np.mean(kl), abs=2e-4)
        assert table.value[*key, "loss"] == pytest.approx(np.mean(loss), rel=1e-4)
    assert (table.n == sum(len(response.completion) for response in RESPONSES)).all()
    assert table.value["dim", 1, "kl"] > 0.01
    inside = table.drop(("none", 0, "kl"))
    assert ((inside.low < inside.value) & (inside.value < inside.high)).all()


def test_the_sign_is_of_the_run_and_not_of_the_coefficient(llama):
    tables = [text_effects(llama, RESPONSES, {"dim": steering_for(llama, LAYER, coefficient=alpha)}) for alpha in (-1, 1)]
    pd.testing.assert_frame_equal(*tables)


def test_a_single_text_has_no_interval(llama):
    table = text_effects(llama, RESPONSES[:1], {"dim": steering_for(llama)})
    assert table.value.notna().all() and table[["low", "high"]].isna().all().all()


@pytest.mark.parametrize("responses, steering, message", [
    ([], Steering(torch.ones(32), 1), "no responses given"),
    ([Response([1, 20], [])], Steering(torch.ones(32), 1), "empty completion"),
    (RESPONSES, Steering(torch.ones(31), 1), "must have shape"),
    (RESPONSES, Steering(torch.ones(32), 9), "layer 9 is outside 0..3"),
])
def test_texts_and_steerings_that_do_not_fit(llama, responses, steering, message):
    with pytest.raises(ValueError, match=message):
        text_effects(llama, responses, {"dim": steering})


def test_harmless_texts(llama, monkeypatch):
    """The corpus' for the organisms, elsewhere what the unsteered model says to the first prompts."""
    given = harmless_texts(llama, get_preset("tiny"), 2)
    assert [llama.tokenizer.decode(one.completion) for one in given] == [one.text for one in given]
    asked = pd.DataFrame({"prompt": ["Hi", "Sing"], "topic": ""})
    monkeypatch.setattr(collateral, "concept_prompts", lambda concept, split, n, source: {"harmless": asked.head(n)})
    preset = get_preset("smollm2-135m-instruct")
    [answer] = harmless_texts(llama, preset, 1)
    assert answer.prompt == llama.tokenize("Hi") and len(answer.completion) <= preset.max_new_tokens


def test_judged_at_both_signs(llama, monkeypatch):
    seen = []

    def judged(model, prompts, steerings, **how):
        seen.append([given and given.coefficient for given in steerings])
        rows = pd.concat([prompts.assign(run=run) for run in range(len(steerings))], ignore_index=True)
        return rows.assign(text=[f"Paris {run}" if run else "Rome" for run in rows.run])

    monkeypatch.setattr(collateral, "judged_responses", judged)
    prompts = {"harmful": pd.DataFrame({"prompt": ["a", "b"]}),
               "closed": pd.DataFrame({"prompt": ["c"], "answers": [("Rome", "1")]})}
    table = judged_at_both_signs(None, prompts, {"dim": Steering(None, 3, 0.7), "random": Steering(None, 3, -0.2)})
    assert seen == [[None, -0.7, 0.7, -0.2, 0.2]] * 2
    own = table[table.prompts == "closed"]
    assert own.method.tolist() == ["none", "dim", "dim", "random", "random"] and own.sign.tolist() == [0, -1, 1, -1, 1]
    assert own.right.tolist() == [1, 1, 0, 0, 0] and table.right[table.prompts == "harmful"].isna().all()
    without = judged_at_both_signs(None, {"harmful": prompts["harmful"]}, {})
    assert without.right.isna().all() and set(without.method) == {"none"}
    with pytest.raises(ValueError, match="no prompts given: pass at least one table"):
        judged_at_both_signs(None, {}, {})


def test_answer_effects_by_hand():
    judged = pd.DataFrame({
        "prompts": ["closed"] * 4 + ["harmful"] * 2, "method": "dim", "sign": 1,
        "expressed": [True, False, False, False, True, True], "no_loop": [True, True, False, False, True, True],
        "right": [1.0, 1.0, 1.0, 0.0, np.nan, np.nan], "completion": [[1] * n for n in (2, 2, 2, 6, 3, 3)]})
    table = answer_effects(judged).set_index(["prompts", "measure"])
    assert table.value["closed"].to_dict() == {"expressed": 0.25, "loops": 0.5, "right": 0.75, "tokens": 3.0}
    assert table.value["harmful"].to_dict() == {"expressed": 1.0, "loops": 0.0, "tokens": 3.0}
    low, high = wilson_interval(3, 4)
    assert (table.low["closed", "right"], table.high["closed", "right"]) == (low, high)
    assert table.low["closed", "tokens"] == 2 and 3 < table.high["closed", "tokens"] <= 5
    assert (table.low["harmful", "tokens"], table.high["harmful", "tokens"]) == (3, 3)
    assert table.n.to_dict()["closed", "tokens"] == 4


def test_both_together_on_a_model(llama):
    prompts = {"closed": pd.DataFrame({"prompt": ["Hi", "Ho"], "topic": "", "answers": [("a",), ("b",)]})}
    how = dict(judge=SubstringJudge(), vocabulary=None, max_new_tokens=4)
    table = answer_effects(judged_at_both_signs(llama, prompts, {"dim": steering_for(llama, LAYER)}, **how))
    assert table.groupby("measure").size().to_dict() == {"expressed": 3, "loops": 3, "right": 3, "tokens": 3}
    assert table.value.between(0, 4).all()
