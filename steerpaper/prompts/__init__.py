"""Prompts by set and split, the corpus that the built-in ones come from, what clean text is, harmless probes, and other
ways to put a prompt."""

from steerpaper.prompts.fluency import CleanText, clean_text
from steerpaper.prompts.probes import closed_questions, corpus_answers, is_answered, requests_that_sound_harmful
from steerpaper.prompts.public import public_prompts
from steerpaper.prompts.sets import (
    SETS, build_prompt_sets, concept_prompts, drawn_from, load_prompts, vocabulary, with_instruction, write_prompt_sets,
)
from steerpaper.prompts.shifts import SHIFTS, shift_table, shifted

__all__ = [
    "SETS", "SHIFTS", "CleanText", "build_prompt_sets", "clean_text", "closed_questions", "concept_prompts",
    "corpus_answers", "drawn_from", "is_answered", "load_prompts", "public_prompts", "requests_that_sound_harmful",
    "shift_table", "shifted", "vocabulary", "with_instruction", "write_prompt_sets",
]
