"""The judge of harmful prompts, on a tiny random model whose answers are forced, and the judge of a preset."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from huggingface_hub.errors import GatedRepoError
from transformers import AutoTokenizer

from steerpaper.behaviour import guard
from steerpaper.behaviour.guard import LLAMA_GUARD_2_COMMIT, LlamaGuardJudge, PairOfJudges, load_guard, load_judge
from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.behaviour.judging import judged_responses
from steerpaper.presets import get_preset

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ 'Agent' if message['role'] == 'assistant' else 'User' }}: "
    "{{ message['content'] }}\n{% endfor %}Is the Agent safe?"
)
PROMPTS = pd.DataFrame({"prompt": ["rob it", "burn the big old barn", "hit"], "positive": True})


@pytest.fixture
def judge(monkeypatch):
    """A judge whose model answers what `judge.answer(question)` says; `judge.seen` are the rows it was given."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    model = tiny_model("llama").eval()
    made = LlamaGuardJudge(model, tokenizer, batch_size=2)
    object.__setattr__(made, "seen", [])
    object.__setattr__(made, "answer", lambda question: "safe")

    def generate(input_ids, attention_mask, pad_token_id, **how):
        assert how == dict(do_sample=False, temperature=None, top_p=None, max_new_tokens=8) and pad_token_id == 2
        rows = []
        for ids, mask in zip(input_ids, attention_mask):
            assert mask.tolist() == sorted(mask.tolist())  # padding is on the left
            made.seen.append(tokenizer.decode(ids[mask.bool()]))
            answer = tokenizer(made.answer(made.seen[-1]))["input_ids"][:8]
            rows.append([*ids.tolist(), *answer, *[2] * (8 - len(answer))])  # the end token fills up
        return torch.tensor(rows)

    monkeypatch.setattr(model, "generate", generate)
    return made


def test_the_question_is_the_templates_and_verdicts_keep_their_order(judge):
    object.__setattr__(judge, "answer", lambda question: "\nunsafe\nS1" if "barn" in question else " safe")
    assert judge.expresses(["Take it.", "", "Hit hard, harder, hardest."], PROMPTS) == [True, False, True]
    assert sorted(judge.seen) == sorted([
        "<bos>User: rob it\nAgent: Take it.\nIs the Agent safe?",
        "<bos>User: burn the big old barn\nAgent: \nIs the Agent safe?",
        "<bos>User: hit\nAgent: Hit hard, harder, hardest.\nIs the Agent safe?",
    ])


def test_a_batch_is_padded_so_that_nothing_changes(judge):
    """The model's own greedy tokens in a batch of rows of unequal lengths are those of one by one."""
    judge = LlamaGuardJudge(tiny_model("llama").eval(), judge.tokenizer)
    rows = [judge._tokens(prompt, "ok" * i) for i, prompt in enumerate(PROMPTS.prompt)]
    assert len({len(row) for row in rows}) == 3
    single = [judge._verdicts([row])[0] for row in rows]
    assert judge._verdicts(rows) == single and any(single)


@pytest.mark.parametrize("answer", ["sure", "", "safe!", "Unsafe", "unsafe S1"])
def test_any_other_verdict_is_an_error(judge, answer):
    object.__setattr__(judge, "answer", lambda question: answer)
    with pytest.raises(ValueError, match="verdict on response 2 is .* not 'safe' or 'unsafe'"):
        judge.expresses(["a", "b", "c"], PROMPTS)


def test_an_interrupted_judge_asks_only_for_what_is_missing(judge, monkeypatch, tmp_path):
    monkeypatch.setenv("STEERPAPER_KEPT", str(tmp_path))
    object.__setattr__(judge, "answer", lambda question: "sure" if "barn" in question else "unsafe")
    with pytest.raises(ValueError, match="verdict on response 1"):  # the longest, alone in the second batch
        judge.expresses(["a", "b", "c"], PROMPTS)
    judge.seen.clear()
    object.__setattr__(judge, "answer", lambda question: "safe")
    assert judge.expresses(["a", "b", "c"], PROMPTS) == [False, True, False] and len(judge.seen) == 1


@pytest.mark.parametrize(("prompts", "given"), [(None, "none"), (PROMPTS.head(2), "2")])
def test_prompts_are_needed(judge, prompts, given):
    for each in (judge, PairOfJudges(judge)):
        with pytest.raises(ValueError, match=f"3 responses and {given} prompts were given: this judge needs"):
            each.expresses(["a", "b", "c"], prompts)
    with pytest.raises(ValueError, match="a table of prompts needs the column 'positive'; this one has prompt"):
        PairOfJudges(judge).expresses(["a", "b", "c"], PROMPTS[["prompt"]])


def test_the_pair_sends_harmful_prompts_to_the_guard_and_harmless_ones_to_the_substrings(judge):
    object.__setattr__(judge, "answer", lambda question: "unsafe" if "I cannot" in question else "safe")
    prompts = PROMPTS.assign(positive=[False, True, True]).set_index(pd.Index([7, 7, 9]))
    pair, texts = PairOfJudges(judge), ["I cannot.", "I cannot.", "Sure."]
    assert pair.expresses(texts, prompts) == [True, False, True]
    assert len(judge.seen) == 2
    assert pair.expresses(texts, prompts.assign(positive=False)) == [True, True, False]


def test_judged_responses_hand_on_what_was_asked_and_say_which_checks_were_not_made(judge, llama):
    object.__setattr__(judge, "answer", lambda question: "unsafe" if "rob it" in question else "safe")
    table = judged_responses(llama, PROMPTS.assign(topic=["", "", "it"]), [None, None], judge=PairOfJudges(judge),
                             vocabulary=None, max_new_tokens=4)
    assert table.expressed.tolist() == [False, True, True] * 2
    assert table.known_words.isna().all() and table.on_topic.isna().tolist() == [True, True, False] * 2
    assert table.clean.dtype == table.ended.dtype == bool
    assert not table.ended.any()  # cut after four tokens, and none the less clean for that
    assert (table.clean == (table.no_loop & (table.on_topic.fillna(1) == 1))).all() and table.clean.any()


def test_the_judge_of_a_preset():
    tiny = get_preset("tiny")
    assert load_judge(tiny) == SubstringJudge()
    with pytest.raises(ValueError, match="'tiny' cannot be: .*unknown judge 'human': choose one of substring, llama"):
        replace(tiny, judge="human")


def test_llama_guard_is_loaded_for_harmful_prompts(monkeypatch):
    monkeypatch.setattr(guard, "load_guard", lambda: "the guard")
    assert load_judge(replace(get_preset("tiny"), judge="llama-guard-2")) == PairOfJudges("the guard", SubstringJudge())


def test_a_missing_guard_says_where_to_get_it(monkeypatch):
    def gated(*_, **__):
        raise OSError("You are trying to access a gated repo")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", gated)
    with pytest.raises(FileNotFoundError) as error:
        load_judge(replace(get_preset("tiny"), judge="llama-guard-2"))
    for part in ("judge meta-llama/Meta-Llama-Guard-2-8B", "https://huggingface.co/meta-llama/Meta-Llama-Guard-2-8B",
                 "hf auth login", 'judge="substring"', "gated repo"):
        assert part in str(error.value)


def test_a_guard_is_loaded_in_bfloat16(llama_folder):
    loaded = load_guard(str(llama_folder))
    assert loaded.model.dtype == torch.bfloat16 and not loaded.model.training


def test_the_guard_is_asked_for_at_its_commit(monkeypatch):
    def refused(name, **where):
        assert where["revision"] == LLAMA_GUARD_2_COMMIT and not where["trust_remote_code"]
        raise OSError from GatedRepoError("403", response=SimpleNamespace(headers={}, request=None))
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refused)
    with pytest.raises(FileNotFoundError, match="accept its licence at https://huggingface.co/meta-llama/Meta-Llama-G"):
        load_guard()


def test_a_guard_that_does_not_fit_says_so(llama_folder, monkeypatch):
    def full(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(torch.OutOfMemoryError, match="GiB in torch.bfloat16 and do not fit .* by refusal substrings"):
        load_guard(str(llama_folder))


def test_a_folder_without_a_guard(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot load the judge"):
        load_guard(str(tmp_path))
