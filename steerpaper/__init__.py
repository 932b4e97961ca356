"""Companion to "What Drives Representation Steering? A Mechanistic Case Study on Steering Refusal"
(arXiv 2604.08524): the package behind the notebooks. An independent implementation.

Here is what notebooks and users need most; the rest is found by its room, such as `sp.heads.attention_change`."""

from steerpaper import paper
from steerpaper.artifacts import (
    load_recorded, load_steering, load_table, load_tensors, save_steering, save_table, save_tensors,
)
from steerpaper.behaviour import (
    SubstringJudge, first_token_ids, first_token_log_odds, judged_responses, load_judge, rates,
)
from steerpaper.circuits import (
    Attribution, Circuit, DirectionalKL, Faithfulness, Graph, attribute, faithfulness, faithfulness_of,
    minimum_faithful, overlap, patch_edges, patching_data,
)
from steerpaper.concepts import REFUSAL, Concept, get_concept
from steerpaper.exercises import check_answer
from steerpaper.figures import PALETTE, save_figure, use_style
from steerpaper.heads import steering_value_vectors
from steerpaper.models import Model, Response, load_model
from steerpaper.parameters import check_parameters
from steerpaper.presets import PRESETS, Preset, get_preset
from steerpaper.prompts import concept_prompts, load_prompts, vocabulary
from steerpaper.steering import Steering, generate, next_token_logits, residual_stream
from steerpaper.vectors import (
    METHODS, Ingredients, contrast_pairs, difference_in_means, random_vector, score_candidates, select_by_generation,
    select_coefficient, sparsify,
)

__all__ = [
    "METHODS", "PALETTE", "PRESETS", "REFUSAL", "Attribution", "Circuit", "Concept", "DirectionalKL", "Faithfulness",
    "Graph", "Ingredients", "Model", "Preset", "Response", "Steering", "SubstringJudge", "attribute", "check_answer",
    "check_parameters", "concept_prompts", "contrast_pairs", "difference_in_means", "faithfulness", "faithfulness_of",
    "first_token_ids", "first_token_log_odds", "generate", "get_concept", "get_preset", "judged_responses",
    "load_judge", "load_model", "load_prompts", "load_recorded", "load_steering", "load_table", "load_tensors",
    "minimum_faithful", "next_token_logits", "overlap", "patch_edges", "patching_data", "random_vector", "rates",
    "residual_stream", "save_figure", "save_steering", "save_table", "save_tensors", "score_candidates",
    "select_by_generation", "select_coefficient", "sparsify", "steering_value_vectors", "use_style", "vocabulary",
]
