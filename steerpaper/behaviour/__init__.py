"""What a model does with its prompts: the refusal metric, judges, and rates with their intervals."""

from steerpaper.behaviour.guard import LlamaGuardJudge, load_judge
from steerpaper.behaviour.rates import judged_responses, next_token_kl, rates
from steerpaper.behaviour.refusal import (
    Judge, SubstringJudge, attack_success_rate, judge_agreement, refusal_metric, refusal_token_ids,
)

__all__ = [
    "Judge", "LlamaGuardJudge", "SubstringJudge", "attack_success_rate", "judge_agreement", "judged_responses",
    "load_judge", "next_token_kl", "rates", "refusal_metric", "refusal_token_ids",
]
