"""Responses: a prompt's token ids and the completion's, and batches of them for teacher forcing."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerpaper import arguments
from steerpaper.models.model import Model


@dataclass(frozen=True)
class Response:
    """What a model said, or is to say, to one prompt.

    Attributes:
        prompt: token ids, chat template and BOS included; those of numpy and torch become a list.
        completion: token ids of the answer, the end token included where there is one.
        text: the completion without special tokens; None where nobody decoded it.

    Raises:
        ValueError: an empty prompt, or what is no token id.
    """

    prompt: list[int]
    completion: list[int]
    text: str | None = None

    def __post_init__(self):
        for name in ("prompt", "completion"):
            object.__setattr__(self, name, arguments.token_ids(f"a response's {name}", getattr(self, name)))
        if not self.prompt:
            raise ValueError("a response needs a prompt of at least one token id, an empty one was given")

    @property
    def tokens(self) -> list[int]:
        """Prompt and completion, one sequence."""
        return [*self.prompt, *self.completion]


@dataclass(frozen=True)
class Batch:
    """Left-padded sequences for one teacher-forced pass.

    Attributes:
        input_ids, attention_mask: prompt and completion of each row; 0 in the mask is padding.
        response_mask: the response positions (§4.1): from the last prompt token to the last but one token of
            the sequence, i.e. the positions whose next token belongs to the completion.
    """

    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    response_mask: Bool[Tensor, "batch pos"]

    @property
    def targets(self) -> Int[Tensor, "batch pos"]:
        """The next token at every position; the last one's is its own and lies outside `response_mask`."""
        return torch.cat([self.input_ids[:, 1:], self.input_ids[:, -1:]], dim=1)


def check_responses(model: Model, responses: Sequence[Response]) -> None:
    """Check that responses can be teacher-forced.

    Raises:
        ValueError: no response, what is none, an empty completion, a sequence longer than the model's context, or token
            ids that it does not have; the message names the response.
    """
    if not arguments.listed("responses", responses):
        raise ValueError("no responses given: teacher forcing needs at least one")
    for i, response in enumerate(responses):
        if not isinstance(response, Response):
            raise ValueError(f"response {i} is {arguments.shown(response)} of type {type(response).__name__}: give "
                             "Response(prompt=[…ids], completion=[…ids]), as generate does")
        if not response.completion:
            raise ValueError(f"response {i} has an empty completion: there is no position to predict")
        if len(response.tokens) > model.n_context:
            raise ValueError(f"response {i} has {len(response.tokens)} tokens, the model's context "
                             f"{model.n_context}")
        arguments.check_vocabulary(f"response {i}", response.tokens, model.n_vocab)


def teacher_forcing(model: Model, responses: Sequence[Response]) -> Batch:
    """Pad responses of unequal lengths into one batch.

    Raises:
        ValueError: as for `check_responses`.
    """
    check_responses(model, responses)
    input_ids, attention_mask = model.pad([response.tokens for response in responses])
    width = input_ids.shape[1]
    position = torch.arange(width, device=model.device)
    length = torch.tensor([[len(response.completion)] for response in responses], device=model.device)
    response_mask = (position >= width - 1 - length) & (position < width - 1)
    return Batch(input_ids, attention_mask, response_mask)
