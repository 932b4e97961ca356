"""Companion to "What Drives Representation Steering? A Mechanistic Case Study on Steering Refusal"
(arXiv 2604.08524): the package behind the notebooks. An independent implementation."""

from steerpaper.artifacts import load_table, load_tensors, save_table, save_tensors
from steerpaper.attribution import Attribution, attribute, patch_edges
from steerpaper.behaviour import judged_responses, rates
from steerpaper.circuits import Circuit, Faithfulness, faithfulness, faithfulness_of, minimum_faithful, overlap
from steerpaper.drawing import draw_circuit, draw_faithfulness
from steerpaper.figures import PALETTE, save_figure, use_style
from steerpaper.fluency import clean_text
from steerpaper.graph import Graph, edge_types
from steerpaper.model import Model, load_model
from steerpaper.patching import PatchingData, patching_data
from steerpaper.presets import PRESETS, Preset, get_preset
from steerpaper.prompts import load_prompts, with_refuse_instruction
from steerpaper.refusal import SubstringJudge, attack_success_rate, refusal_metric, refusal_token_ids
from steerpaper.responses import Response
from steerpaper.steering import Steering, generate, next_token_logits, residual_stream
from steerpaper.vectors import difference_in_means, random_vector, select, select_by_generation

__all__ = [
    "PALETTE", "PRESETS", "Attribution", "Circuit", "Faithfulness", "Graph", "Model", "PatchingData", "Preset",
    "Response", "Steering", "SubstringJudge", "attack_success_rate", "attribute", "clean_text",
    "difference_in_means", "draw_circuit", "draw_faithfulness", "edge_types", "faithfulness", "faithfulness_of",
    "generate", "get_preset", "judged_responses", "load_model", "load_prompts", "load_table", "load_tensors",
    "minimum_faithful", "next_token_logits", "overlap", "patch_edges", "patching_data", "random_vector", "rates",
    "refusal_metric", "refusal_token_ids", "residual_stream", "save_figure", "save_table", "save_tensors", "select",
    "select_by_generation", "use_style", "with_refuse_instruction",
]
