"""Steering vectors: extracted, trained, chosen and made sparse."""

from steerpaper.vectors.extraction import (
    LearnedVector, difference_in_means, next_token_vector, preference_vector, principal_component, random_vector,
)
from steerpaper.vectors.pairs import ContrastPairs, contrast_pairs
from steerpaper.vectors.selection import candidate_at, select, select_by_generation, select_coefficient
from steerpaper.vectors.sparsify import (
    SPARSIFIERS, apply_mask, check_attribution, sparse_vectors, sparsify, vector_digest,
)

__all__ = [
    "SPARSIFIERS", "ContrastPairs", "LearnedVector", "apply_mask", "candidate_at", "check_attribution",
    "contrast_pairs", "difference_in_means", "next_token_vector", "preference_vector", "principal_component",
    "random_vector", "select", "select_by_generation", "select_coefficient", "sparse_vectors", "sparsify",
    "vector_digest",
]
