"""Companion to "What Drives Representation Steering? A Mechanistic Case Study on Steering Refusal"
(arXiv 2604.08524): the package behind the notebooks. An independent implementation.

Here is what notebooks and users need most; the rest is found by its room, such as `sp.heads.attention_change`."""

from steerpaper.artifacts import load_steering, load_table, load_tensors, save_steering, save_table, save_tensors
from steerpaper.behaviour import SubstringJudge, judge_agreement, judged_responses, load_judge, rates, refusal_token_ids
from steerpaper.circuits import (
    Attribution, Circuit, Faithfulness, Graph, agreement, attribute, draw_circuit, draw_faithfulness, edge_types,
    faithfulness, faithfulness_of, minimum_faithful, overlap, patch_edges, patching_data,
)
from steerpaper.figures import PALETTE, save_figure, use_style
from steerpaper.heads import (
    attention_change, decompose_heads, lens_logits, lens_preference, logit_lens, mlp_value_vectors,
    steering_value_vectors, typical_tokens,
)
from steerpaper.models import Model, Response, load_model
from steerpaper.paper import VERDICTS, our_table, paper_arithmetic, reported_numbers, scorecard, verdict_counts
from steerpaper.parameters import check_parameters
from steerpaper.presets import PRESETS, Preset, get_preset
from steerpaper.prompts import load_prompts, vocabulary
from steerpaper.steering import Steering, generate, next_token_logits, residual_stream
from steerpaper.vectors import (
    METHODS, SPARSIFIERS, Ingredients, apply_mask, candidate_at, check_attribution, contrast_pairs, difference_in_means,
    next_token_vector, preference_vector, principal_component, random_vector, select, select_by_generation,
    select_coefficient, sparsify, vector_digest,
)

__all__ = [
    "METHODS", "PALETTE", "PRESETS", "SPARSIFIERS", "VERDICTS", "Attribution", "Circuit", "Faithfulness", "Graph",
    "Ingredients", "Model", "Preset", "Response", "Steering", "SubstringJudge", "agreement", "apply_mask",
    "attention_change", "attribute", "candidate_at", "check_attribution", "check_parameters", "contrast_pairs",
    "decompose_heads", "difference_in_means", "draw_circuit", "draw_faithfulness", "edge_types", "faithfulness",
    "faithfulness_of", "generate", "get_preset", "judge_agreement", "judged_responses", "lens_logits",
    "lens_preference", "load_judge", "load_model", "load_prompts", "load_steering", "load_table", "load_tensors",
    "logit_lens", "minimum_faithful", "mlp_value_vectors", "next_token_logits", "next_token_vector", "our_table",
    "overlap", "paper_arithmetic", "patch_edges", "patching_data", "preference_vector", "principal_component",
    "random_vector", "rates", "refusal_token_ids", "reported_numbers", "residual_stream", "save_figure",
    "save_steering", "save_table", "save_tensors", "scorecard", "select", "select_by_generation", "select_coefficient",
    "sparsify", "steering_value_vectors", "typical_tokens", "use_style", "vector_digest", "verdict_counts",
    "vocabulary",
]
