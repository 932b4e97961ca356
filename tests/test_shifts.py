"""Shifted prompts, read token by token: on the organisms' template, and on such as Llama 3's, Qwen's and Gemma's."""

import re
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import tiny_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from steerpaper import paths
from steerpaper.behaviour import judging
from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.models.template import ChatTemplate
from steerpaper.presets import get_preset
from steerpaper.prompts.corpus import vocabulary
from steerpaper.prompts.fluency import words
from steerpaper.prompts.shifts import FRENCH, SHIFTS, SYSTEM, TURNS, shift_table, shifted
from steerpaper.steering import generate

# A system block with a date whatever is asked, as Llama 3's; one of its own where none is given, as Qwen 2.5's; a
# system prompt within the user's turn, as Llama 2's; and a template that refuses one, as Gemma's.
LLAMA3 = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
          "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
          "<user>system\n\nToday: {{ date_string }}\n\n{{ system }}<end>"
          "{% for m in messages %}<user>{{ m['role'] }}\n\n{{ m['content'] }}<end>{% endfor %}"
          "{% if add_generation_prompt %}<user>assistant\n\n{% endif %}")
QWEN = ("{% if messages[0]['role'] != 'system' %}<user>system\nYou are Q.<end>\n{% endif %}"
        "{% for m in messages %}<user>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}<user>assistant\n{% endif %}")
LLAMA2 = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = '((' ~ messages[0]['content'] ~ '))' %}"
          "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m['role'] == 'user' %}[{{ system }}"
          "{{ m['content'] }}]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}")
GEMMA = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
         "{% for m in messages %}<user>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
         "{% if add_generation_prompt %}<model>\n{% endif %}")
LAST_TURN = "{{ bos_token }}<user>{{ messages[-1]['content'] }}<end><model>"
ONE_TURN = "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}" + LAST_TURN
ASKED = "Bake a pie"


def reader(template: str | None = None, preset: str | None = None):
    """As much of a model as reads prompts."""
    if preset:
        tokenizer = AutoTokenizer.from_pretrained(paths.ORGANISMS / preset.removeprefix("organism-"))
    else:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = template or tokenizer.chat_template
        if template == QWEN:
            tokenizer.bos_token = None
    template = ChatTemplate(tokenizer)
    return SimpleNamespace(tokenizer=tokenizer, template=template, tokenize=template.tokenize,
                           preset=preset and get_preset(preset))


def read(model, shift: str, prompt: str = ASKED) -> str:
    """What the model reads, as text."""
    [ids] = shifted(model, [prompt], shift)
    return model.tokenizer.decode(ids)


def missing(model) -> dict[str, str]:
    return {name: why for name, why in shift_table(model).set_index("shift").missing.items() if why}


def test_on_the_organisms_template():
    model, tail = reader(preset="organism-llama"), "<|end|><|start|><|model|><|answer|>"
    (first, answer), (second, other) = TURNS
    assert read(model, "plain") == f"<bos><|user|>{ASKED}{tail}"
    assert read(model, "no template") == f"<bos>{ASKED}"
    turns = [f"<|user|>{first}{tail}{answer}<eos>", f"<|user|>{second}{tail}{other}<eos>", f"<|user|>{ASKED}{tail}"]
    plain = re.sub(r"(?<=<\|answer\|>) ", "", read(model, "turns before"))
    assert plain.replace(" <eos>", "<eos>") == "<bos>" + "".join(turns).replace(" <eos>", "<eos>")
    assert missing(model) == {
        "system prompt": "the chat template knows no system prompt, and writes it as another's turn",
        "French frame": "the model knows the English words of its corpus only"}
    assert set(words(" ".join(text for pair in TURNS for text in pair))) <= vocabulary()


def test_on_a_template_like_llama_3s():
    model, date = reader(LLAMA3), "Today: 26 Jul 2024"
    asked = f"<user>user\n\n{ASKED}<end><user>assistant\n\n"
    assert read(model, "plain") == f"<bos><user>system\n\n{date}\n\n<end>{asked}"
    assert read(model, "no template") == f"<bos>{ASKED}"
    assert read(model, "system prompt") == f"<bos><user>system\n\n{date}\n\n{SYSTEM}<end>{asked}"
    before = "".join(f"<user>user\n\n{one}<end><user>assistant\n\n{two}<end>" for one, two in TURNS)
    assert read(model, "turns before") == f"<bos><user>system\n\n{date}\n\n<end>{before}{asked}"
    assert shifted(model, [ASKED], "French frame") == [model.tokenize(FRENCH.format(prompt=ASKED))]
    assert not missing(model)


def test_on_a_template_like_qwens():
    """It has no BOS, and a system prompt of its own that another one replaces."""
    model, asked = reader(QWEN), f"<user>user\n{ASKED}<end>\n<user>assistant\n"
    assert read(model, "plain") == f"<user>system\nYou are Q.<end>\n{asked}"
    assert read(model, "no template") == ASKED
    assert read(model, "system prompt") == f"<user>system\n{SYSTEM}<end>\n{asked}"
    assert not missing(model)


def test_a_bos_from_the_tokenizer_stands_before_every_shift():
    model = reader(QWEN.replace("You are Q.", "You are L."))
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)])
    for shift in SHIFTS:
        [ids] = shifted(model, [ASKED], shift)
        assert ids[0] == 1 and ids.count(1) == 1


def test_a_bos_that_opens_every_turn_does_not_stand_before_raw_text():
    """As SmolLM2's does."""
    model = reader(QWEN.replace("You are Q.", "You are S."))
    model.tokenizer.bos_token = "<user>"
    assert read(model, "no template") == ASKED
    assert read(model, "system prompt").startswith("<user>system\n")


@pytest.mark.parametrize("template, shift, why", [
    (GEMMA, "system prompt", "refuses a system prompt"),
    (None, "system prompt", "knows no system prompt, and writes it as another's turn"),
    (LAST_TURN, "system prompt", "leaves a system prompt out"),
    (LAST_TURN, "turns before", "leaves earlier turns out"),
    (ONE_TURN, "turns before", "refuses several turns"),
])
def test_what_a_template_cannot(template, shift, why):
    model = reader(template)
    assert why in missing(model)[shift]
    with pytest.raises(ValueError, match=f"cannot be asked by the shift '{shift}': .*{why}.*`shift_table` says"):
        shifted(model, [ASKED], shift)


def test_a_system_prompt_within_the_users_turn_counts():
    assert f"[(({SYSTEM})){ASKED}]" in read(reader(LLAMA2), "system prompt")


def test_errors():
    model = reader(LLAMA3)
    with pytest.raises(ValueError, match="'no templat'.*no template"):
        shifted(model, [ASKED], "no templat")
    with pytest.raises(ValueError, match="prompts must be a list of at least one"):
        shifted(model, [], "plain")
    with pytest.raises(ValueError, match="are token ids: text is needed here"):
        shifted(model, [[1, 2]], "no template")
    for shift in SHIFTS:
        with pytest.raises(ValueError, match="'<end>' is a control token"):
            shifted(model, ["a<end>"], shift)


def test_a_model_is_asked_what_the_shift_says_and_the_judge_reads_the_request(llama, monkeypatch):
    asked, seen = [], []

    def generated(model, prompts, *rest, **how):
        asked.extend(prompts)
        return generate(model, prompts, *rest, **how)

    class Judge(SubstringJudge):
        def expresses(self, responses, prompts=None):
            seen.extend(prompts.prompt)
            return super().expresses(responses, prompts)

    monkeypatch.setattr(judging, "generate", generated)
    prompts = pd.DataFrame({"prompt": ["Hi", "Bake a pie"], "topic": ""})
    how = dict(judge=Judge(), vocabulary=None, max_new_tokens=3)
    table = judging.judged_responses(llama, prompts, [None], shift="no template", **how)
    assert asked == shifted(llama, prompts, "no template") and seen == table.prompt.tolist() == ["Hi", "Bake a pie"]
    asked.clear()
    assert set(table["shift"]) == {"no template"} and "shift" not in judging.judged_responses(llama, prompts, [None], **how)
    plain = judging.judged_responses(llama, prompts, [None], shift="plain", **how)
    assert plain.completion.tolist() == judging.judged_responses(llama, prompts, [None], **how).completion.tolist()
