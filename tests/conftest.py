"""Tiny random models built in code: no hub, no GPU, seconds to test on.

Small enough to be quick, odd enough to catch mistakes: grouped heads, heads whose width times their number
is not the model's, random norm weights, and for Gemma 2 a sliding window and soft-caps that bite on short
prompts.
"""

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from steerpaper.models.model import load_model


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files run side by side, each whole; the recorded notebooks are one: each reads what those before it wrote.

    (Not by `--dist loadgroup`: xdist 3.8 writes its groups where pytest 9.2 no longer looks.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if file.endswith(".py") else "notebooks"

    return Files(config, log)


SPECIAL = ["<pad>", "<bos>", "<eos>", "<user>", "<end>", "<model>", "<unk>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<user>{{ message['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<model>\n{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, after the special ones; newline included."""
    characters = ["\n", *map(chr, range(32, 127))]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=TEMPLATE, bos_token="<bos>", eos_token="<eos>",
        pad_token="<pad>", unk_token="<unk>", additional_special_tokens=["<user>", "<end>", "<model>"],
    )


def tiny_model(family: str, **changes):
    """A random Hugging Face model whose next tokens depend on all of its context."""
    sizes = {
        "vocab_size": len(tiny_tokenizer()), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
        "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    gemma2 = {
        "num_key_value_heads": 1, "sliding_window": 6, "query_pre_attn_scalar": 20,
        "tie_word_embeddings": True, "attn_logit_softcapping": 4.0, "final_logit_softcapping": 6.0,
    }
    kind, config_kind, own = {
        "llama": (LlamaForCausalLM, LlamaConfig, {}),
        "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
        "gemma2": (Gemma2ForCausalLM, Gemma2Config, gemma2),
        "qwen3": (Qwen3ForCausalLM, Qwen3Config, {}),
    }[family]
    model = kind(config_kind(**{**sizes, **own, **changes}))
    generator = torch.Generator().manual_seed(0)
    centre = 0.0 if family == "gemma2" else 1.0  # Gemma's norms multiply by 1 + weight
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            # Gemma scales embeddings up by sqrt(d_model): left so, tied ones would only repeat themselves.
            scale = 0.06 if family == "gemma2" and "embed" in name else 0.25
            weight.copy_(centre + 0.3 * noise if "norm" in name else scale * noise)
    return model


def save_checkpoint(folder, model, tokenizer=None):
    """Write model and tokenizer as `load_model` reads them; the folder."""
    model.save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    """Checkpoint folder of the tiny Llama."""
    return save_checkpoint(tmp_path_factory.mktemp("llama"), tiny_model("llama"))


@pytest.fixture(scope="session")
def gemma2_folder(tmp_path_factory):
    """Checkpoint folder of the tiny Gemma 2."""
    return save_checkpoint(tmp_path_factory.mktemp("gemma2"), tiny_model("gemma2"))


@pytest.fixture(scope="session")
def llama(llama_folder):
    """The tiny Llama, loaded."""
    return load_model(llama_folder, device="cpu")


@pytest.fixture(scope="session")
def gemma2(gemma2_folder):
    """The tiny Gemma 2, loaded."""
    return load_model(gemma2_folder, device="cpu")


@pytest.fixture(scope="session", params=["llama", "gemma2"])
def model(request):
    """Each tiny model in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def plain(model, request):
    """The same weights as `model` in Hugging Face alone: what references hook into."""
    folder = request.getfixturevalue(f"{model.family}_folder")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
