"""Prompts by set and split, the corpus that the built-in ones come from, and what clean text is."""

from steerpaper.prompts.fluency import CleanText, clean_text
from steerpaper.prompts.public import public_prompts
from steerpaper.prompts.sets import (
    SETS, build_prompt_sets, concept_prompts, drawn_from, load_prompts, vocabulary, with_instruction, write_prompt_sets,
)

__all__ = [
    "SETS", "CleanText", "build_prompt_sets", "clean_text", "concept_prompts", "drawn_from", "load_prompts",
    "public_prompts", "vocabulary", "with_instruction", "write_prompt_sets",
]
