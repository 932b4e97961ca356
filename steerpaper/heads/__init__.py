"""What heads and MLPs write under steering, read through the lens, and where the heads attend."""

from steerpaper.heads.lens import (
    lens_logits, lens_preference, logit_lens, text_kinds, token_labels, typical_texts, typical_tokens, word_scales,
)
from steerpaper.heads.ov import (
    chance_cosines, decompose_heads, mlp_value_vectors, pooled_explained, steering_value_vectors,
)
from steerpaper.heads.patterns import attention_change
from steerpaper.heads.preference import preferences, strongest_writes

__all__ = [
    "attention_change", "chance_cosines", "decompose_heads", "lens_logits", "lens_preference", "logit_lens",
    "mlp_value_vectors", "pooled_explained", "preferences", "steering_value_vectors", "strongest_writes", "text_kinds",
    "token_labels", "typical_texts", "typical_tokens", "word_scales",
]
