"""Companion to "What Drives Representation Steering? A Mechanistic Case Study on Steering Refusal"
(arXiv 2604.08524): the package behind the notebooks. An independent implementation."""

from steerpaper.artifacts import load_table, load_tensors, save_table, save_tensors
from steerpaper.behaviour import (
    LlamaGuardJudge, SubstringJudge, attack_success_rate, judge_agreement, judged_responses, load_judge, rates,
    refusal_metric, refusal_token_ids,
)
from steerpaper.circuits import (
    Attribution, Circuit, Faithfulness, Graph, PatchingData, agreement, attribute,
    edge_types, faithfulness, faithfulness_of, minimum_faithful, overlap, patch_edges, patching_data,
)
from steerpaper.figures import PALETTE, draw_circuit, draw_faithfulness, save_figure, use_style
from steerpaper.heads import (
    attention_change, decompose_heads, lens_logits, lens_preference, logit_lens, mlp_value_vectors,
    steering_value_vectors, typical_tokens,
)
from steerpaper.models import Model, Response, load_model
from steerpaper.paper import VERDICTS, our_table, paper_arithmetic, reported_numbers, scorecard, verdict_counts
from steerpaper.parameters import check_parameters
from steerpaper.presets import PRESETS, Preset, get_preset
from steerpaper.prompts import clean_text, load_prompts, vocabulary, with_refuse_instruction
from steerpaper.steering import Steering, generate, next_token_logits, residual_stream
from steerpaper.vectors import (
    SPARSIFIERS, ContrastPairs, LearnedVector, apply_mask, candidate_at, check_attribution, contrast_pairs,
    difference_in_means, next_token_vector, preference_vector, principal_component, random_vector, select,
    select_by_generation, select_coefficient, sparsify, vector_digest,
)

__all__ = [
    "PALETTE", "PRESETS", "SPARSIFIERS", "VERDICTS", "Attribution", "Circuit", "ContrastPairs", "Faithfulness", "Graph",
    "LearnedVector", "LlamaGuardJudge", "Model", "PatchingData", "Preset", "Response", "Steering", "SubstringJudge",
    "agreement", "apply_mask", "attack_success_rate", "attention_change", "attribute", "candidate_at",
    "check_attribution", "check_parameters", "clean_text", "contrast_pairs", "decompose_heads", "difference_in_means",
    "draw_circuit", "draw_faithfulness", "edge_types", "faithfulness", "faithfulness_of", "generate", "get_preset",
    "judge_agreement", "judged_responses", "lens_logits", "lens_preference", "load_judge", "load_model", "load_prompts",
    "load_table", "load_tensors", "logit_lens", "minimum_faithful", "mlp_value_vectors", "next_token_logits",
    "next_token_vector", "our_table", "overlap", "paper_arithmetic", "patch_edges", "patching_data",
    "preference_vector", "principal_component", "random_vector", "rates", "refusal_metric", "refusal_token_ids",
    "reported_numbers", "residual_stream", "save_figure", "save_table", "save_tensors", "scorecard", "select",
    "select_by_generation", "select_coefficient", "sparsify", "steering_value_vectors", "typical_tokens", "use_style",
    "vector_digest", "verdict_counts", "vocabulary", "with_refuse_instruction",
]
