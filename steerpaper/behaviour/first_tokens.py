"""How an answer begins: the log odds that its first token shows a concept, which for refusal is the refusal metric."""

import re
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper import arguments
from steerpaper.models.model import Model


def first_token_log_odds(
    logits: Float[Tensor, "batch vocab"], tokens: Iterable[int]
) -> Float[Tensor, "batch"]:
    """Log odds that the next token is one of `tokens`; of refusal tokens the paper's refusal metric (§3.2),
    log P_R - log(1 - P_R).

    P_R is the summed probability of the tokens. The softmax's normaliser cancels, so this is the logsumexp over them
    minus the logsumexp over all others: finite where 1 - P_R would be 0.

    Args:
        logits: next-token logits at the last prompt token, any floating dtype (computed in float32).
        tokens: first tokens of answers that show the concept, as ids; repetitions count once.

    Returns:
        Natural log odds, float32, one per row: positive where such a beginning is the likelier one.

    Raises:
        ValueError: no token, every token of the vocabulary, an id outside it, or logits that are not finite.
    """
    tokens = sorted(set(arguments.token_ids("first tokens", tokens)))
    vocab = logits.shape[-1]
    if not 0 < len(tokens) < vocab:
        raise ValueError(f"got {len(tokens)} first tokens: give 1 to {vocab - 1} of the {vocab} tokens")
    if tokens[0] < 0 or tokens[-1] >= vocab:
        raise ValueError(f"first tokens {tokens} leave the vocabulary: ids run from 0 to {vocab - 1}")
    counts = torch.zeros(vocab, dtype=torch.bool, device=logits.device)
    counts[tokens] = True
    logits = logits.float()
    odds = logits[..., counts].logsumexp(-1) - logits[..., ~counts].logsumexp(-1)
    if not odds.isfinite().all():
        raise ValueError("the first tokens' log odds are not finite: so are the logits, which have NaN or inf among "
                         "them")
    return odds


def first_token_ids(model: Model, tokens: Sequence[str] | re.Pattern[str]) -> list[int]:
    """Ids of first tokens in the model's vocabulary, given as text ("I"), or as a pattern for all whose text begins so.

    Raises:
        ValueError: no texts, one string where a list of them belongs, a text that is not one token of this model, or a
            pattern that none begins with.
    """
    if isinstance(tokens, re.Pattern):
        texts = model.tokenizer.batch_decode([[token] for token in range(model.n_vocab)])
        if not (found := [token for token, text in enumerate(texts) if tokens.match(text)]):
            raise ValueError(f"no token of this model begins with {tokens.pattern!r}: its answers cannot either, take "
                             "another concept")
        return found
    ids = []
    for token in arguments.strings("first tokens", tokens):
        encoded = model.tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(encoded) != 1:
            raise ValueError(f"first token {token!r} is {len(encoded)} tokens in this model: give single tokens")
        ids += encoded
    return ids
