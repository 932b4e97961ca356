"""The small models that come with this repository: how they are trained, and their cards."""

from steerpaper.organisms.training import FAMILIES, Recipe, build_model, train, train_all, train_tokenizer

__all__ = ["FAMILIES", "Recipe", "build_model", "train", "train_all", "train_tokenizer"]
