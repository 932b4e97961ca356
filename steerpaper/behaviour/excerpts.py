"""Answers as committed pages may show them: of a real model's to harmful prompts, no more than how they begin."""

import re
from collections.abc import Sequence

import pandas as pd

from steerpaper.models.model import Model
from steerpaper.presets import Preset

SHOWN = 12
_UNSPACED = re.compile(r"[\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]{1,4}")  # of Chinese, Japanese, Korean


def is_longer(text: str) -> bool:
    """Whether a text cannot be an excerpt: a token is hardly more than a word and the space before it, or than four
    characters where words are not spaced."""
    words, n = _UNSPACED.subn(" ", text.removesuffix("…"))
    return len(words.split()) + n > SHOWN


def excerpts(model: Model, examples: pd.DataFrame, answers: Sequence[str], settings: Preset) -> pd.DataFrame:
    """A table of examples for what may be committed: answers are cut after `SHOWN` tokens, and prompts, which are other
    people's, are numbered as they come.

    Those of the shipped models stay: the prompts are ours, and the answers say nothing that could be used.

    Args:
        examples: with the column prompt.
        answers: its columns of answers.
    """
    if settings.shipped:
        return examples

    def cut(text: str) -> str:
        tokens = model.tokenizer(text, add_special_tokens=False).input_ids
        return model.tokenizer.decode(tokens[:SHOWN]) + " …" if len(tokens) > SHOWN else text

    numbers = pd.factorize(examples.prompt)[0] + 1
    return examples.assign(prompt=[f"prompt {n}" for n in numbers], **{name: examples[name].map(cut) for name in answers})
