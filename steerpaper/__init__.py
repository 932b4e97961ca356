"""Companion to "What Drives Representation Steering? A Mechanistic Case Study on Steering Refusal"
(arXiv 2604.08524): the package behind the notebooks. An independent implementation.

Here is what notebooks and users need most; the rest is found by its room, such as `sp.heads.attention_change`."""

from steerpaper.artifacts import (
    load_recorded, load_steering, load_table, load_tensors, save_steering, save_table, save_tensors,
)
from steerpaper.behaviour import (
    LlamaGuardJudge, SubstringJudge, first_token_ids, first_token_log_odds, judge_agreement, judged_responses,
    load_judge, rates,
)
from steerpaper.circuits import (
    Attribution, Circuit, DirectionalKL, Faithfulness, FlippedResponses, Graph, LogitDifference, agreement, attribute,
    edge_types, faithfulness, faithfulness_of, minimum_faithful, overlap, patch_edges, patching_data,
)
from steerpaper.concepts import CONCEPTS, REFUSAL, Concept, get_concept
from steerpaper.figures import PALETTE, save_figure, use_style
from steerpaper.heads import (
    attention_change, decompose_heads, lens_logits, lens_preference, logit_lens, mlp_value_vectors,
    steering_value_vectors, typical_tokens,
)
from steerpaper.models import Model, Response, load_model
from steerpaper.paper import (
    VERDICTS, average_drop, paper_arithmetic, reported, reported_numbers, scorecard, sparsity_kept, verdict_counts,
)
from steerpaper.parameters import check_parameters
from steerpaper.presets import PRESETS, Preset, get_preset
from steerpaper.prompts import clean_text, concept_prompts, load_prompts, vocabulary, with_instruction
from steerpaper.steering import Steering, generate, next_token_logits, residual_stream
from steerpaper.vectors import (
    METHODS, SPARSIFIERS, ContrastPairs, Ingredients, LearnedVector, admissible, apply_mask, candidate_at,
    contrast_pairs, difference_in_means, effect_ratio, next_token_vector, preference_vector, principal_component,
    random_vector, score_candidates, select_by_generation, select_coefficient, sparsify,
)

__all__ = [
    "CONCEPTS", "METHODS", "PALETTE", "PRESETS", "REFUSAL", "SPARSIFIERS", "VERDICTS", "Attribution", "Circuit",
    "Concept", "ContrastPairs", "DirectionalKL", "Faithfulness", "FlippedResponses", "Graph", "Ingredients",
    "LearnedVector", "LlamaGuardJudge", "LogitDifference", "Model", "Preset", "Response", "Steering", "SubstringJudge",
    "admissible", "agreement", "apply_mask", "attention_change", "attribute", "average_drop", "candidate_at",
    "check_parameters", "clean_text", "concept_prompts", "contrast_pairs", "decompose_heads", "difference_in_means",
    "edge_types", "effect_ratio", "faithfulness", "faithfulness_of", "first_token_ids", "first_token_log_odds",
    "generate", "get_concept", "get_preset", "judge_agreement", "judged_responses", "lens_logits", "lens_preference",
    "load_judge", "load_model", "load_prompts", "load_recorded", "load_steering", "load_table", "load_tensors",
    "logit_lens", "minimum_faithful", "mlp_value_vectors", "next_token_logits", "next_token_vector", "overlap",
    "paper_arithmetic", "patch_edges", "patching_data", "preference_vector", "principal_component", "random_vector",
    "rates", "reported", "reported_numbers", "residual_stream", "save_figure", "save_steering", "save_table",
    "save_tensors", "score_candidates", "scorecard", "select_by_generation", "select_coefficient", "sparsify",
    "sparsity_kept", "steering_value_vectors", "typical_tokens", "use_style", "verdict_counts", "vocabulary",
    "with_instruction",
]
