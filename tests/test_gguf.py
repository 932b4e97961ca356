"""GGUF files, written here with gguf's own writer: every parameter is what gguf's own dequantisation says, tokenizers
give the same ids, and what is not understood is refused.
"""

import json
import multiprocessing
import warnings

import gguf
import numpy as np
import pytest
import torch
from conftest import tiny_model
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import steerpaper as sp
from steerpaper import artifacts, paths
from steerpaper.models.gguf import dequantised
from steerpaper.presets import PRESETS, get_preset, get_presets

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2")
FILE_TYPES = {Kind.F32: 0, Kind.Q4_0: 2, Kind.Q4_1: 3, Kind.Q8_0: 7, Kind.Q5_0: 8, Kind.Q4_K: 15, Kind.Q6_K: 18}
# Where in a block of 256 its scales of type float16 stand, of kinds that gguf reads and does not write.
SCALES = {Kind.Q4_K: (0, 2), Kind.Q6_K: (208,)}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
# The published splits, spelt out here once more.
SPLITS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                 r"|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
             r"|\s+(?!\S)|\s+",
}
CORPUS = ["It's 12 o'clock, 1234 bells  ring;  we're  3 of   them", "don't\n\n  bake a pie in 2024 ",
          "naïve café – 日本語 12"] * 9


def byte_level(pre: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that splits text as models of that kind do, its merges learned here."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC() if pre == "qwen2" else None
    first = (pre_tokenizers.Digits(individual_digits=True) if pre == "smollm" else
             pre_tokenizers.Split(Regex(SPLITS[pre]), "isolated"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre == "smollm")])
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=330, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def family_model(family: str, **changes):
    """Rows of 64, so that they can be quantised in blocks of 32."""
    sizes = dict(vocab_size=330, hidden_size=64, intermediate_size=96, num_hidden_layers=2, head_dim=16)
    if family == "gemma2":  # Gemma's own numbers, where a file states none
        sizes |= dict(query_pre_attn_scalar=16, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
    if family == "qwen3":
        sizes |= dict(head_dim=32)
    return tiny_model(family, **sizes | changes).float()


def interleaved(weight, n_heads):
    """The rows of queries and keys in llama.cpp's order: the halves of a head that rotate together side by side."""
    heads = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, -1)
    return np.ascontiguousarray(heads.swapaxes(1, 2).reshape(weight.shape))


def stored(model) -> dict[str, np.ndarray]:
    """The tensors of a model by their names in a GGUF file, in its order and with its offsets."""
    config = model.config
    parts = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
             "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm"}
    if config.model_type == "gemma2":
        parts |= {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                  "post_feedforward_layernorm": "post_ffw_norm"}
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"} | {
        f"model.layers.{i}.{old}": f"blk.{i}.{new}"
        for i in range(config.num_hidden_layers) for old, new in parts.items()}
    found = {}
    for name, weight in model.named_parameters():
        part, _, kind = name.rpartition(".")
        value = weight.detach().numpy()
        if config.model_type == "llama" and part.endswith(("q_proj", "k_proj")):
            key_values = part.endswith("k_proj")
            value = interleaved(value, config.num_key_value_heads if key_values else config.num_attention_heads)
        found[f"{names[part]}.{kind}"] = value + 1 if config.model_type == "gemma2" and "norm" in part else value
    return found


def write(path, model, tokenizer=None, pre="qwen2", kind=Kind.F32, more=None, tensors=None):
    """A GGUF file of a model, matrices quantised; the path."""
    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_name("A model")
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.model_type != "qwen2":
        writer.add_key_length(model.model.layers[0].self_attn.head_dim)
        writer.add_value_length(model.model.layers[0].self_attn.head_dim)
    if config.model_type == "llama":
        writer.add_rope_dimension_count(config.head_dim)
    if config.model_type == "gemma2":
        writer.add_sliding_window(config.sliding_window)
    vocabulary(writer, tokenizer or byte_level(pre), pre) if config.model_type != "gemma2" else pieces(writer)
    for add, *values in more or []:
        getattr(writer, add)(*values)
    for name, value in (stored(model) | (tensors or {})).items():
        as_kind = kind if value.ndim == 2 else Kind.F32
        blocks = random_blocks(value, kind) if as_kind in SCALES else gguf.quants.quantize(value, as_kind)
        writer.add_tensor(name, blocks, raw_dtype=as_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_blocks(value, kind):
    """Blocks of random bits as a matrix of that shape has them, with scales that are numbers."""
    n, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(value.size)
    blocks = rng.integers(0, 256, (len(value), value.shape[1] // n, size), dtype=np.uint8)
    for at in SCALES[kind]:
        scales = rng.uniform(0.001, 0.002, blocks.shape[:2]).astype(np.float16)
        blocks[..., at:at + 2] = scales[..., None].view(np.uint8)
    return blocks.reshape(len(value), -1)


def vocabulary(writer, tokenizer, pre):
    content = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in content["merges"]])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)


def pieces(writer):
    """A vocabulary of pieces with scores, as Gemma has: single characters and bytes."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<|im_start|>", "<|im_end|>", *(f"<0x{i:02X}>" for i in range(256)),
              "▁", *map(chr, range(97, 123)), "th", "he", "the", "in", "▁the"]
    tokens += [f"<unused{i}>" for i in range(330 - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    kinds = {"<unk>": 2} | dict.fromkeys(["<pad>", "<eos>", "<bos>", "<|im_start|>", "<|im_end|>"], 3)
    writer.add_token_types([6 if token.startswith("<0x") else kinds.get(token, 1) for token in tokens])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ bos_token }}" + CHATML)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Nothing is kept in the repository, and presets made here are forgotten."""
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    known = dict(PRESETS)
    yield
    PRESETS.clear()
    PRESETS.update(known)


def left_behind() -> list[str]:
    """What lies where models are kept, but for locks."""
    return sorted(path.name for path in paths.MODELS.glob("*") if path.suffix != ".lock")


# -- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family, tied", [("llama", False), ("llama", True), ("qwen2", False), ("qwen3", True),
                                          ("gemma2", True)])
def test_an_unquantised_file_gives_the_model_back(family, tied, tmp_path):
    """Every parameter, the same logits, and so the same configuration."""
    model = family_model(family, tie_word_embeddings=tied)
    loaded = sp.load_model(write(tmp_path / "a model.gguf", model), device="cpu")
    kept, wanted = dict(loaded.hf.named_parameters()), dict(model.named_parameters())
    assert kept.keys() == wanted.keys()
    for name, weight in wanted.items():  # Gemma's norms lose what 1 + w does
        torch.testing.assert_close(kept[name], weight, rtol=0, atol=2e-7 if family == "gemma2" and "norm" in name else 0)
    ids = torch.randint(330, (3, 24), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded.hf(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert loaded.family == family and loaded.dtype == torch.float32 and loaded.commit is None


@pytest.mark.parametrize(("family", "kind"), [
    *((family, kind) for family in FAMILIES for kind in (Kind.Q8_0, Kind.Q4_0)),
    *((family, kind) for family in ("llama", "qwen2") for kind in (Kind.Q4_1, Kind.Q5_0, *SCALES)),  # of files we read
], ids=lambda value: getattr(value, "name", value))
def test_every_parameter_is_what_gguf_dequantises(family, kind, tmp_path):
    sizes = dict(hidden_size=256, intermediate_size=256, head_dim=64) if kind in SCALES else {}
    model = family_model(family, **sizes)
    path = write(tmp_path / "quantised.gguf", model, kind=kind)
    kept = load_file(dequantised(str(path), torch.float32) / "model.safetensors")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    wanted = stored(model)
    assert len(kept) == len(tensors) == len(wanted)
    read = family_model(family, **sizes)
    read.load_state_dict(kept, strict=family != "gemma2")  # whose unembedding is the embedding, stored once
    for name, value in stored(read).items():
        expected = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)
        np.testing.assert_allclose(value, expected, rtol=0, atol=2e-7 if family == "gemma2" and "norm" in name else 0)
        if value.ndim == 2 and kind not in SCALES:  # and quantisation did something, but not much
            error = np.abs(value - wanted[name]).max() / np.abs(wanted[name]).max()
            assert 1e-4 < error < (0.01 if kind == Kind.Q8_0 else 0.15)


def test_a_file_is_kept_once_per_dtype(tmp_path):
    """The stored weights are rounded once, whatever was asked for first."""
    path = write(tmp_path / "model.gguf", family_model("llama"), kind=Kind.Q8_0)
    half, whole = (sp.load_model(path, dtype=dtype, device="cpu") for dtype in ("bfloat16", "float32"))
    assert half.dtype == torch.bfloat16
    for a, b in zip(half.hf.parameters(), whole.hf.parameters()):
        assert torch.equal(a, b.bfloat16())
    assert [name.rpartition("-")[2] for name in left_behind()] == ["bfloat16", "float32"]


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_s_rotary_embedding_is_recovered(factor, tmp_path):
    """A GGUF file holds the divisors of the frequencies; transformers' reader leaves them out."""
    rope = dict(rope_type="llama3", factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, rope_theta=500000.0,
                original_max_position_embeddings=8192)
    model = family_model("llama", rope_parameters=rope, max_position_embeddings=16384)
    default = family_model("llama", rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    divisors = (default.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq).numpy()
    assert divisors.max() == pytest.approx(factor) and divisors.min() == 1
    path = write(tmp_path / "model.gguf", model, tensors={"rope_freqs.weight": divisors})
    loaded = sp.load_model(path, device="cpu")
    torch.testing.assert_close(loaded.hf.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    other = write(tmp_path / "other.gguf", model, tensors={"rope_freqs.weight": divisors ** 2})
    with pytest.raises(ValueError, match="other.gguf scales the rotary embedding in another way than Llama 3.1"):
        sp.load_model(other)


# -- tokens ------------------------------------------------------------------------------------------------

TEXTS = [*CORPUS[:3], "x  1  22 333", "WE'RE we're don’t", " \n\n \t a", "e\u0301 and é", "<|im_start|>user\nhi<|im_end|>", ""]


@pytest.mark.parametrize("family, pre", [("llama", "llama-bpe"), ("llama", "smollm"), ("qwen2", "qwen2"),
                                         ("qwen3", "qwen2")])
def test_the_tokenizer_gives_the_same_ids(family, pre, tmp_path):
    reference = byte_level(pre)
    model = sp.load_model(write(tmp_path / "model.gguf", family_model(family), reference, pre), device="cpu")
    for text in TEXTS:
        wanted = reference(text)["input_ids"]
        assert model.tokenizer(text)["input_ids"] == wanted, text
        assert model.tokenizer.decode(wanted) == reference.decode(wanted)
    assert model.tokenize("a pie") == reference("<|im_start|>user\na pie<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    assert model.end_tokens == [reference.eos_token_id] and model.pad_token == 0


def test_gemma_s_pieces(tmp_path):
    model = sp.load_model(write(tmp_path / "model.gguf", family_model("gemma2")), device="cpu")
    pieces = model.tokenizer.convert_ids_to_tokens(model.tokenizer("bin the é")["input_ids"])
    assert pieces == ["<bos>", "b", "in", "▁the", "▁", "<0xC3>", "<0xA9>"]
    assert model.tokenize("hi")[:2] == [2, 4] and model.tokenize("hi").count(2) == 1


# -- what it is called --------------------------------------------------------------------------------------


def test_a_file_stands_where_a_preset_does(tmp_path):
    """With a space in its path and behind a link of another name, as in the hub's cache."""
    folder = tmp_path / "my models"
    folder.mkdir()
    write(tmp_path / "0a1b2c", family_model("llama"), kind=Kind.Q8_0)
    (folder / "My Model.Q8_0.gguf").symlink_to(tmp_path / "0a1b2c")
    path = str(folder / "My Model.Q8_0.gguf")
    (preset,) = get_presets(path).values()
    assert (preset.name, preset.model, preset.note) == ("my-model.q8-0", path, "a local file")
    assert list(get_presets(f"'{path}' tiny")) == [path, "tiny"]
    artifacts.save_tensors(path, "dim", {"v": torch.zeros(2)}, {})
    _, manifest = artifacts.load_tensors(path, "dim")
    assert manifest["model"] == "My Model.Q8_0.gguf: Q8_0 weights, dequantised"
    assert manifest["weights"] == sp.models.weights.digest(path) and len(manifest["weights"]) == 64
    assert sp.load_model(preset.name, device="cpu").preset == preset


def test_a_folder_of_the_same_name_is_another_model(tmp_path):
    path = write(tmp_path / "tiny.gguf", family_model("llama"))
    with pytest.raises(ValueError, match="the file .*tiny.gguf would write over the results of the preset 'tiny'"):
        get_preset(path)


# -- keeping -----------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    """A small file."""
    return write(tmp_path / "model.gguf", family_model("qwen2"), kind=Kind.Q8_0)


def test_a_kept_folder_is_read_again_and_says_what_it_is_of(path, monkeypatch):
    first = sp.load_model(path, device="cpu")
    (name,) = left_behind()
    manifest = json.loads((paths.MODELS / name / "manifest.json").read_text())
    assert name == f"model-{manifest['sha256'][:16]}-float32"
    assert (manifest["source"], manifest["weights"]) == ("model.gguf", "Q8_0, dequantised")
    assert manifest["tensors"] == {"F32": 11, "Q8_0": 16}
    monkeypatch.setattr("steerpaper.models.gguf.GGUFReader", None)  # not opened again
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = sp.load_model(path, device="cpu")
    assert all(map(torch.equal, first.hf.parameters(), second.hf.parameters()))


@pytest.mark.parametrize("damage", ["truncated", "lost", "no manifest", "other version"])
def test_a_damaged_folder_is_made_again(path, damage):
    place = dequantised(str(path), torch.float32)
    content = (place / "model.safetensors").read_bytes()
    manifest = place / "manifest.json"
    if damage == "truncated":
        (place / "model.safetensors").write_bytes(content[:-100])
    elif damage == "lost":
        (place / "tokenizer.json").unlink()
    elif damage == "no manifest":
        manifest.write_text("{")
    else:
        manifest.write_text(manifest.read_text().replace(gguf_version(), "0.0.1"))
    with pytest.warns(UserWarning, match="is damaged, or other versions"):
        sp.load_model(path, device="cpu")
    assert (place / "model.safetensors").read_bytes() == content and left_behind() == [place.name]


def gguf_version():
    from importlib.metadata import version
    return version("gguf")


def test_what_a_killed_process_left_is_removed(path):
    digest = sp.models.weights.digest(str(path))
    draft = paths.MODELS / f".model-{digest[:16]}-float32.draft-1"
    draft.mkdir(parents=True)
    (draft / "model.safetensors").write_bytes(b"half")
    place = dequantised(str(path), torch.float32)
    assert left_behind() == [place.name]


def _race(path, folder, results):
    paths.MODELS = folder
    made = []
    import steerpaper.models.gguf as module
    write_one = module._write
    module._write = lambda *given: (made.append(1), write_one(*given))
    dequantised(path, torch.float32)
    results.put(len(made))


def test_two_processes_make_it_once(path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_race, args=(str(path), paths.MODELS, results)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert sorted(results.get(timeout=10) for _ in processes) == [0, 1]


def test_a_full_disk_leaves_nothing_and_the_next_run_goes_on(path, monkeypatch):
    from transformers import PreTrainedModel
    save = PreTrainedModel.save_pretrained

    def half(self, folder, **more):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", half)
    with pytest.raises(OSError, match=r"no space left for 0.0 GB in .*models .*make room, or make that folder a link"):
        sp.load_model(path, device="cpu")
    assert left_behind() == []
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save)
    assert sp.load_model(path, device="cpu").family == "qwen2"


# -- refused -----------------------------------------------------------------------------------------------


def refused(path, match):
    with pytest.raises(ValueError, match=match):
        sp.load_model(path, device="cpu")
    assert left_behind() == []


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 a zip archive", b"GGUF\x03\x00\x00\x00"])
def test_not_a_gguf_file(content, tmp_path):
    (tmp_path / "model.gguf").write_bytes(content)
    refused(tmp_path / "model.gguf", "model.gguf cannot be read as a GGUF file .*get it again, whole")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_truncated_file(share, path):
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    refused(path, "model.gguf cannot be read as a GGUF file .*get it again, whole")


@pytest.mark.parametrize("add, value, match", [
    ("add_type", "adapter", "holds a LoRA adapter"), ("add_type", "mmproj", "holds a mmproj, not a model"),
    ("add_uint16", ("split.count", 3), "one of 3 pieces of a model"),
    ("add_uint32", ("qwen2.expert_count", 8), "not understood here .expert_count = 8."),
    ("add_string", ("qwen2.rope.scaling.type", "yarn"), "not understood here .rope.scaling.type = yarn."),
    ("add_uint32", ("qwen2.rope.dimension_count", 8), "rope.dimension_count = 8"),
])
def test_what_it_states_is_refused_or_understood(add, value, match, tmp_path):
    given = value if isinstance(value, tuple) else (value,)
    refused(write(tmp_path / "model.gguf", family_model("qwen2"), more=[(add, *given)]), match)


def test_another_family(tmp_path):
    model = family_model("llama")
    model.config.model_type = "phi3"
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "phi3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(tmp_path / "model.gguf", "architecture 'phi3'; supported: llama, gemma2, qwen2, qwen3")


def test_another_split_of_text(tmp_path):
    refused(write(tmp_path / "model.gguf", family_model("llama"), byte_level("qwen2"), "poro-chat"),
            "tokenizer.ggml.pre = poro-chat")


def test_a_bias_that_has_no_place(tmp_path):
    """transformers' reader drops it without a word."""
    refused(write(tmp_path / "model.gguf", family_model("llama"), tensors={"blk.0.attn_q.bias": np.ones(64, "float32")}),
            "holds tensors that have no place in a llama model: blk.0.attn_q.bias")
