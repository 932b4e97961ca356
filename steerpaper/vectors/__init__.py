"""Steering vectors: extracted, trained, chosen and made sparse."""

from steerpaper.vectors.controls import judged_random, random_control
from steerpaper.vectors.cosines import cosine_table
from steerpaper.vectors.extraction import (
    LearnedVector, difference_in_means, next_token_vector, preference_vector, principal_component, random_vector,
)
from steerpaper.vectors.methods import METHODS, Extracted, Ingredients, Method, get_method
from steerpaper.vectors.pairs import ContrastPairs, contrast_pairs
from steerpaper.vectors.places import chosen_places, winning_runs
from steerpaper.vectors.selection import (
    admissible, candidate_at, conditions, count_conditions, score_candidates, score_coefficients, select_by_generation,
    select_coefficient,
)
from steerpaper.vectors.sparsify import (
    SPARSIFIERS, apply_mask, effect_ratio, sparse_vectors, sparsify, with_values,
)

__all__ = [
    "METHODS", "SPARSIFIERS", "ContrastPairs", "Extracted", "Ingredients", "LearnedVector", "Method", "admissible",
    "apply_mask", "candidate_at", "chosen_places", "conditions", "contrast_pairs", "cosine_table", "count_conditions",
    "difference_in_means", "effect_ratio", "get_method", "judged_random", "next_token_vector", "preference_vector",
    "principal_component", "random_control", "random_vector", "score_candidates", "score_coefficients",
    "select_by_generation", "select_coefficient", "sparse_vectors", "sparsify", "winning_runs", "with_values",
]
