"""Answers as they may be shown: a real model's to harmful prompts are not for committed pages."""

from collections.abc import Iterable

from steerpaper.models.model import Model
from steerpaper.presets import Preset

SHOWN = 12


def excerpts(model: Model, texts: Iterable[str], settings: Preset) -> list[str]:
    """Answers for tables and notebooks that may be committed: their first `SHOWN` tokens and an ellipsis.

    Those of the shipped models, whose answers say nothing that could be used, come whole.
    """
    texts = list(texts)
    if settings.shipped:
        return texts
    rows = [model.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    return [model.tokenizer.decode(row[:SHOWN]) + " …" if len(row) > SHOWN else text for text, row in zip(texts, rows)]
