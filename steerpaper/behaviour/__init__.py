"""What a model does with its prompts: how its answers begin, judges, and rates with their intervals."""

from steerpaper.behaviour.collateral import answer_effects, harmless_texts, judged_at_both_signs, text_effects
from steerpaper.behaviour.effects import (
    at_every_layer, beside_unsteered, by_sparsifier, judged_both_ways, judged_frozen, judged_sparse, share_undone,
    shared_start, sparsity_curves, turned,
)
from steerpaper.behaviour.excerpts import excerpts
from steerpaper.behaviour.first_tokens import first_token_ids, first_token_log_odds
from steerpaper.behaviour.guard import LlamaGuardJudge, load_judge
from steerpaper.behaviour.judges import Judge, ScriptJudge, SubstringJudge, judge_agreement
from steerpaper.behaviour.judging import judged_responses, next_token_kl, rates
from steerpaper.behaviour.statistics import resampled_rates, with_intervals
from steerpaper.behaviour.together import judged_together
from steerpaper.behaviour.unsteered import ENOUGH, nothing_to_steer, nothing_turned, unsteered_rates

__all__ = [
    "ENOUGH", "Judge", "LlamaGuardJudge", "ScriptJudge", "SubstringJudge", "answer_effects", "at_every_layer",
    "beside_unsteered", "by_sparsifier", "excerpts", "first_token_ids", "first_token_log_odds", "harmless_texts",
    "judge_agreement", "judged_at_both_signs", "judged_both_ways", "judged_frozen", "judged_responses",
    "judged_sparse", "judged_together", "load_judge", "next_token_kl", "nothing_to_steer", "nothing_turned",
    "rates", "resampled_rates", "share_undone", "shared_start", "sparsity_curves", "text_effects", "turned",
    "unsteered_rates", "with_intervals",
]
