"""Models and the inside of them: the only room that knows nnsight and the names of modules."""

from steerpaper.models.model import Model, load_model
from steerpaper.models.responses import Response

__all__ = ["Model", "Response", "load_model"]
