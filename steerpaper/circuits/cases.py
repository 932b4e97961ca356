"""What circuits are found and tested on: responses, each with its steering."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper.models.maps import wide
from steerpaper.models.model import Model
from steerpaper.models.responses import Batch, Response, check_responses, teacher_forcing
from steerpaper.steering import Steering, per_row


@dataclass(frozen=True, eq=False)
class Cases:
    """Responses to teacher-force, all steered by one vector at one layer; checked, made by `of`.

    Attributes:
        coefficients: alpha of every response.
    """

    responses: Sequence[Response]
    vector: Float[Tensor, "d_model"]
    layer: int
    coefficients: list[float]

    @classmethod
    def of(cls, model: Model, responses: Sequence[Response], steering: Steering | Sequence[Steering]) -> "Cases":
        """Of one steering for all responses, or one each.

        Raises:
            ValueError: no response, or one that does not fit the model; steerings that do not fit the model or the
                responses, or that differ in layer or vector.
        """
        check_responses(model, responses)
        steerings = per_row(model, steering, len(responses))
        if missing := [i for i, entry in enumerate(steerings) if entry is None]:
            raise ValueError(f"responses {missing[:5]} have no steering: there is nothing to attribute to")
        first = steerings[0]
        for i, entry in enumerate(steerings):
            same = torch.equal(entry.vector.cpu(), first.vector.cpu())
            if entry.layer != first.layer or not same:
                what = "layer" if same else "vector"
                raise ValueError(f"the steerings of responses 0 and {i} differ in {what}: one graph has one "
                                 "steering node, only coefficients may differ")
        return cls(responses, first.vector, first.layer, [entry.coefficient for entry in steerings])

    @property
    def inputs(self) -> dict:
        """All that a computation depends on here, for `Kept`."""
        rows = [(response.prompt, response.completion) for response in self.responses]
        return {"rows": rows, "layer": self.layer, "alphas": self.coefficients, "vector": self.vector}

    @property
    def lengths(self) -> list[int]:
        """Tokens of every response, its prompt's included."""
        return [len(response.tokens) for response in self.responses]

    def batch(self, model: Model, rows: Sequence[int]) -> Batch:
        """Some responses, padded."""
        return teacher_forcing(model, [self.responses[i] for i in rows])

    def additions(
        self, model: Model, rows: Sequence[int],
    ) -> tuple[Float[Tensor, "batch 1 1"], Float[Tensor, "batch 1 d_model"]]:
        """Of some responses alpha and alpha s, in at least float32."""
        how = dict(dtype=wide(model), device=model.device)
        alpha = torch.tensor([[[self.coefficients[i]]] for i in rows], **how)
        return alpha, alpha * self.vector.to(**how)
