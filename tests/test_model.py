"""The handles of `Model` against Hugging Face's own modules, tokens, and every error of `load_model`."""

import hashlib
import json
import shutil
import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import SPECIAL, save_checkpoint, tiny_model, tiny_tokenizer
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing

from steerpaper.models import checkpoint
from steerpaper.models.model import Model, check_access, load_model
from steerpaper.presets import PRESETS

ROWS = [[1, 20, 31, 45, 60, 22, 23, 90, 17, 33], [1, 50, 51], [1, 9, 80, 81, 82, 83, 7]]


def rms(x, eps):
    return (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def traced_logits(model, rows):
    with model.trace(*model.pad(rows)):
        logits = model.logits.save()
    return logits


# -- the forward ---------------------------------------------------------------------------------------------

@torch.no_grad()
def test_logits_agree_with_hugging_face(model, plain):
    padded = traced_logits(model, ROWS)
    for row, logits in zip(ROWS, padded):
        expected = plain(input_ids=torch.tensor([row])).logits[0]
        torch.testing.assert_close(logits[-len(row):], expected, rtol=0, atol=2e-5)
    assert padded.std() > 0.1


@torch.no_grad()
def test_gemma2_fixture_slides_and_caps(gemma2):
    a, b = ROWS[0], [1, 99, *ROWS[0][2:]]
    with gemma2.trace(*gemma2.pad([a, b])):
        first = gemma2.attention_write(0).output.save()
        logits = gemma2.logits.save()
    assert torch.equal(first[0, -1], first[1, -1])  # the second token lies outside the window of layer 0
    assert not torch.allclose(logits[0, -1], logits[1, -1])  # and is seen through the full layers
    assert logits.abs().max() < 6.0


@torch.no_grad()
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_qwen_agrees_with_hugging_face(tmp_path, family):
    hf = tiny_model(family).eval()
    model = load_model(save_checkpoint(tmp_path, hf), device="cpu")
    expected = hf(input_ids=torch.tensor([ROWS[0]])).logits
    torch.testing.assert_close(traced_logits(model, [ROWS[0]]), expected, rtol=0, atol=2e-5)


def test_sizes_and_frozen(model):
    n_kv_heads = {"llama": 2, "gemma2": 1}[model.family]
    assert (model.n_layers, model.n_heads, model.n_kv_heads) == (4, 4, n_kv_heads)
    assert (model.d_model, model.d_head) == (32, 12)
    assert (model.n_vocab, model.n_context, model.dtype) == (len(tiny_tokenizer()), 128, torch.float32)
    assert model.has_post_norms == (model.family == "gemma2")
    assert model.end_tokens == [2] and model.pad_token == 0 and model.preset is None
    assert not model.hf.training and not any(weight.requires_grad for weight in model.hf.parameters())


def test_dtype_is_honoured(llama_folder):
    assert load_model(llama_folder, dtype="bfloat16", device="cpu").dtype == torch.bfloat16
    assert load_model(llama_folder, dtype=torch.float64, device="cpu").dtype == torch.float64


def test_preset_is_found_by_name(llama_folder, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], model=str(llama_folder), dtype="float64"))
    model = load_model("tiny", device="cpu")
    assert model.preset is PRESETS["tiny"] and model.dtype == torch.float64


def test_local_folder_never_reaches_for_the_network(gemma2_folder, monkeypatch):
    calls = []
    monkeypatch.setattr(socket.socket, "connect", lambda *args: calls.append(args))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: calls.append(args))
    load_model(gemma2_folder, device="cpu")
    assert calls == []


# -- weights and handles -------------------------------------------------------------------------------------

@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 3])
def test_head_weights_reproduce_the_projections(model, layer):
    with model.trace(*model.pad(ROWS)):
        normed, values = model.v_proj(layer).input.save(), model.v_proj(layer).output.save()
        heads, write = model.o_proj(layer).input.save(), model.o_proj(layer).output.save()
    by_head = torch.einsum("bpd,kde->bpke", normed, model.W_V(layer)).flatten(-2)
    torch.testing.assert_close(by_head, values, rtol=0, atol=1e-5)
    by_head = torch.einsum("bphe,hed->bpd", heads.unflatten(-1, (4, 12)), model.W_O(layer))
    torch.testing.assert_close(by_head, write, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 2])
def test_gammas_and_writes_make_up_the_residual_stream(model, layer):
    with model.trace(*model.pad(ROWS)):
        h = model.layer(layer).input.save()
        to_attention = model.q_proj(layer).input.save()
        o = model.o_proj(layer).output.save()
        attention = model.attention_write(layer).output.save()
        between = model.mlp_norm(layer).input.save()
        to_mlp = model.mlp(layer).input.save()
        mlp = model.mlp_write(layer).output.save()
        after = model.layer(layer + 1).input.save()

    def close(got, expected):
        real = model.pad(ROWS)[1].bool()
        torch.testing.assert_close(got[real], expected[real], rtol=0, atol=2e-5)

    close(h / rms(h, model.norm_eps) * model.attention_gamma(layer), to_attention)
    close(between / rms(between, model.norm_eps) * model.mlp_gamma(layer), to_mlp)
    close(h + attention, between)
    close(between + mlp, after)
    if model.has_post_norms:
        close(o / rms(o, model.norm_eps) * model.attention_post_gamma(layer), attention)
    else:
        assert model.attention_post_gamma(layer) is None
        close(o, attention)


@torch.no_grad()
def test_final_norm_and_unembedding_make_the_logits(model):
    with model.trace(*model.pad(ROWS)):
        h = model.final_norm.input.save()
        logits = model.logits.save()
    expected = (h / rms(h, model.norm_eps) * model.final_gamma) @ model.W_U
    if model.family == "gemma2":
        expected = 6.0 * torch.tanh(expected / 6.0)
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)


# -- tokens --------------------------------------------------------------------------------------------------

def ids(text):
    characters = ["\n", *map(chr, range(32, 127))]
    return [len(SPECIAL) + characters.index(character) for character in text]


def test_tokenize_fills_the_template(model):
    bos, user, end, assistant = 1, 3, 4, 5
    assert model.tokenize("Hi 7") == [bos, user, *ids("Hi 7"), end, *ids("\n"), assistant, *ids("\n")]


def test_post_instruction_tokens(model):
    assert model.post_instruction_tokens == [4, *ids("\n"), 5, *ids("\n")]


@pytest.mark.parametrize("template_writes", [True, False])
@pytest.mark.parametrize("tokenizer_writes", [True, False])
def test_one_bos_where_template_or_tokenizer_writes_one(llama, tmp_path, template_writes, tokenizer_writes):
    """What `apply_chat_template` and the tokenizer write, nothing more."""
    tokenizer = tiny_tokenizer()
    if tokenizer_writes:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    if not template_writes:
        tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    model = load_model(save_checkpoint(tmp_path, tiny_model("llama"), tokenizer), device="cpu")
    assert model.tokenizer("x")["input_ids"] == [1] * tokenizer_writes + ids("x")
    with_bos = llama.tokenize("Hi")
    assert model.tokenize("Hi") == (with_bos if template_writes or tokenizer_writes else with_bos[1:])
    text = model.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False,
                                               add_generation_prompt=True)
    assert model.tokenize("Hi") == model.tokenizer(text, add_special_tokens=not template_writes)["input_ids"]


def test_a_bos_that_opens_every_turn_is_left_alone(llama, tmp_path):
    """As SmolLM2's does."""
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<user>"
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "<user>Be kind<end>\n")
    model = load_model(save_checkpoint(tmp_path, tiny_model("llama"), tokenizer), device="cpu")
    assert model.tokenize("Hi") == [3, *ids("Be kind"), 4, *ids("\n"), 3, *ids("Hi"), 4, *ids("\n"), 5, *ids("\n")]
    with pytest.raises(ValueError, match="'<user>' begins a text"):
        model.tokenize("a<user>")


def test_tokenize_refuses_a_second_bos_and_a_missing_template(llama, monkeypatch):
    with pytest.raises(ValueError, match="'<bos>' begins a text and cannot stand in one: take it out of the prompt"):
        llama.tokenize("a<bos>")
    monkeypatch.setattr(llama.tokenizer, "chat_template", None)
    with pytest.raises(ValueError, match="no chat template: pass lists of token ids"):
        llama.tokenize("Hi")


def test_pad_is_on_the_left(model):
    input_ids, mask = model.pad([[5, 6, 7], [8]])
    assert input_ids.tolist() == [[5, 6, 7], [0, 0, 8]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]


# -- errors --------------------------------------------------------------------------------------------------

@pytest.fixture
def broken(llama_folder, tmp_path):
    """A copy of the tiny Llama's folder to damage."""
    return shutil.copytree(llama_folder, tmp_path / "broken")


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def fails(folder, kind, match, **arguments):
    with pytest.raises(kind, match=match):
        load_model(folder, device="cpu", **arguments)


@pytest.mark.parametrize("name", ["organism-lama", "/no/such/folder", "a/b/c", "", "../no-such-folder"])
def test_unknown_name(name):
    fails(name, ValueError, f"unknown model '{name}'.*choose one of .*tiny.* folder, or a hub id")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_says(error, monkeypatch, of="resolve_revision"):
    """Have the hub's client fail as it does: in resolving the revision, or in reading the config behind an OSError."""
    def resolve(*args, **kwargs):
        if of == "resolve_revision":
            raise error
        return SimpleNamespace(resolved=COMMIT)

    def get(source, **where):
        assert where["revision"] == COMMIT
        raise OSError("cannot be loaded") from error
    monkeypatch.setattr(checkpoint, "resolve_revision", resolve)
    monkeypatch.setattr(checkpoint.PreTrainedConfig, "get_config_dict", get)


def answered(kind):
    return kind("no", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize("of", ["resolve_revision", "config"])
@pytest.mark.parametrize("error, kind, match", [
    (answered(GatedRepoError), PermissionError, "owner/model is gated: accept its licence at .*/owner/model .*login"),
    (answered(RepositoryNotFoundError), FileNotFoundError, "the hub has no model 'owner/model' that you may see"),
    (answered(RevisionNotFoundError), FileNotFoundError, "owner/model has no revision 'v9': choose a commit of .*main"),
    (LocalEntryNotFoundError("no"), ConnectionError, "owner/model at v9 is not complete in the hub's cache here, and "
     "the hub cannot be reached: run `hf download owner/model --revision v9`"),
    (OfflineModeIsEnabled("no"), ConnectionError, "owner/model at v9 is not complete"),
])
def test_hub_errors_say_what_to_do(monkeypatch, of, error, kind, match):
    monkeypatch.setattr(checkpoint.constants, "is_offline_mode", lambda: False)
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], model="owner/model", revision="v9"))
    hub_says(error, monkeypatch, of)
    fails("tiny", kind, match)


def test_other_errors_of_a_hub_model_are_as_for_a_folder(monkeypatch):
    hub_says(OSError("disk full"), monkeypatch, "config")
    fails("some/model", FileNotFoundError, "no readable config.json .* for 'some/model'.*cannot be loaded")


def test_offline_without_a_cache(monkeypatch, tmp_path):
    """The hub's client itself, kept from the network."""
    monkeypatch.setattr(checkpoint.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(checkpoint.constants, "HF_HUB_CACHE", str(tmp_path))
    fails("owner/model", ConnectionError, "owner/model at its default branch is not .* and HF_HUB_OFFLINE is set: run "
          "`hf download owner/model` with")
    fails("qwen3-8b", ConnectionError, f"Qwen/Qwen3-8B at {PRESETS['qwen3-8b'].revision} is not complete")


def test_a_cached_hub_model_loads_offline_and_knows_its_commit(llama, llama_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(checkpoint.constants, "HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--owner--model"
    shutil.copytree(llama_folder, home / "snapshots" / COMMIT)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    model = load_model("owner/model", device="cpu")
    assert model.commit == COMMIT and llama.commit is None
    assert torch.equal(model.W_U, llama.W_U)
    assert checkpoint.commit("owner/model", None, local_files_only=True) == COMMIT


def test_preset_whose_folder_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], model=str(tmp_path / "gone")))
    fails("tiny", FileNotFoundError, "gone of preset 'tiny' is missing.*notebook 00")


def test_unsupported_architecture_is_refused_before_the_weights(broken):
    change_config(broken, model_type="gpt2")
    (broken / "model.safetensors").unlink()
    fails(broken, ValueError, "model_type 'gpt2'; supported: llama, gemma2, qwen2, qwen3")


def test_attention_bias_is_refused(broken):
    change_config(broken, attention_bias=True)
    fails(broken, ValueError, "attention_bias.*supported: attention_bias = false")


def test_unknown_dtype(broken):
    fails(broken, ValueError, "no dtype 'float33' for weights: choose float32", dtype="float33")


def test_missing_config_tokenizer_and_weights(broken):
    (broken / "tokenizer.json").unlink()
    fails(broken, FileNotFoundError, "no readable tokenizer")
    (broken / "model.safetensors").unlink()
    fails(broken, FileNotFoundError, r"no weights: .*\*.safetensors missing")
    (broken / "config.json").write_text("{")
    fails(broken, FileNotFoundError, "no readable config.json with a model_type")
    (broken / "config.json").unlink()
    fails(broken, FileNotFoundError, "no readable config.json with a model_type")


def test_missing_shard(broken):
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "second.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    fails(broken, FileNotFoundError, "no weights: .*second.safetensors missing")


def test_truncated_weights(broken):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    fails(broken, ValueError, "corrupt weights .*model.safetensors")


def test_digests_are_verified(broken):
    file = broken / "model.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (broken / "SHA256SUMS").write_text(f"{digest}  model.safetensors\n")
    load_model(broken, device="cpu")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    fails(broken, ValueError, f"model.safetensors is not the file in SHA256SUMS .*expected {digest}")
    (broken / "SHA256SUMS").write_text(f"{digest}  other.json\n")
    fails(broken, FileNotFoundError, "other.json is listed in SHA256SUMS but missing")
    (broken / "SHA256SUMS").write_text("model.safetensors\n")
    fails(broken, ValueError, "SHA256SUMS has a line that is not '<sha256>  <file>': 'model.safetensors'")


def test_weights_that_are_not_finite(broken):
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(broken, lambda weights: weights[name].view(-1)[3:4].fill_(torch.nan))
    fails(broken, ValueError, f"weight {name} .*not finite")


def test_weights_that_do_not_fit_the_config(broken):
    change_config(broken, num_hidden_layers=3)
    fails(broken, ValueError, "unexpected keys .*layers.3")
    change_config(broken, num_hidden_layers=5)
    fails(broken, ValueError, "missing keys .*layers.4")
    change_config(broken, num_hidden_layers=4, intermediate_size=47)
    fails(broken, ValueError, "do not fit its config.json")


def test_check_at_load_sees_a_layer_without_effect(broken):
    change_weights(broken, lambda weights: weights["model.layers.2.self_attn.o_proj.weight"].zero_())
    fails(broken, RuntimeError, "editing the queries of layer 2 leaves the logits as they were")


@pytest.mark.parametrize("handle, what", [
    ("q_proj", "queries"), ("k_proj", "keys"), ("v_proj", "values"), ("o_proj", "head outputs")])
def test_check_at_load_sees_edits_that_do_not_arrive(llama, monkeypatch, handle, what):
    nowhere = SimpleNamespace(input=torch.zeros(1), output=torch.zeros(1))
    monkeypatch.setattr(Model, handle, lambda self, layer: nowhere)
    with pytest.raises(RuntimeError, match=f"editing the {what} of layer 2 leaves the logits as they were"):
        check_access(llama)


def test_check_at_load_sees_logits_that_differ(llama, monkeypatch):
    monkeypatch.setattr(llama, "hf", tiny_model("llama", rms_norm_eps=0.5).eval())
    with pytest.raises(RuntimeError, match="traced logits differ from the plain forward"):
        check_access(llama)


@pytest.mark.parametrize("entry, what", [
    ({"gamma_offset": 0.5}, "attention reads"), ({"attention_norm": "pre_feedforward_layernorm"}, "attention reads"),
    ({"attention_post_norm": None}, "attention adds"), ({"mlp_post_norm": None}, "the MLP adds"),
])
def test_check_at_load_sees_a_family_that_is_built_otherwise(gemma2, monkeypatch, entry, what):
    monkeypatch.setattr(gemma2, "_names", replace(gemma2._names, **entry))
    with pytest.raises(RuntimeError, match=f"what {what} in layer 2 is off by .*'gemma2' is not built as its entry"):
        check_access(gemma2)
