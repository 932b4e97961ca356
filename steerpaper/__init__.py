"""Companion to "What Drives Representation Steering? A Mechanistic Case Study on Steering Refusal"
(arXiv 2604.08524): the package behind the notebooks. An independent implementation."""

from steerpaper.agreement import agreement
from steerpaper.artifacts import load_table, load_tensors, save_table, save_tensors
from steerpaper.attribution import Attribution, attribute, patch_edges
from steerpaper.behaviour import judged_responses, rates
from steerpaper.circuits import Circuit, Faithfulness, faithfulness, faithfulness_of, minimum_faithful, overlap
from steerpaper.claims import VERDICTS, our_table
from steerpaper.comparison import reported_numbers, verdict_counts
from steerpaper.drawing import draw_circuit, draw_faithfulness
from steerpaper.figures import PALETTE, save_figure, use_style
from steerpaper.fluency import clean_text
from steerpaper.graph import Graph, edge_types
from steerpaper.guard import LlamaGuardJudge, load_judge
from steerpaper.lens import lens_logits, lens_preference, logit_lens, typical_tokens
from steerpaper.model import Model, load_model
from steerpaper.ov import decompose_heads, mlp_value_vectors, steering_value_vectors
from steerpaper.pairs import ContrastPairs, contrast_pairs
from steerpaper.parameters import check_parameters
from steerpaper.patching import PatchingData, patching_data
from steerpaper.patterns import attention_change
from steerpaper.presets import PRESETS, Preset, get_preset
from steerpaper.prompts import load_prompts, vocabulary, with_refuse_instruction
from steerpaper.recheck import paper_arithmetic
from steerpaper.refusal import (
    SubstringJudge, attack_success_rate, judge_agreement, refusal_metric, refusal_token_ids,
)
from steerpaper.reported import scorecard
from steerpaper.responses import Response
from steerpaper.sparsify import SPARSIFIERS, apply_mask, check_attribution, sparsify, vector_digest
from steerpaper.steering import Steering, generate, next_token_logits, residual_stream
from steerpaper.vectors import (
    LearnedVector, candidate_at, difference_in_means, next_token_vector, preference_vector, principal_component,
    random_vector, select, select_by_generation, select_coefficient,
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
