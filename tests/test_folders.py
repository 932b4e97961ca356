"""Checkpoint folders and chat templates as people have them: read rightly, or refused with what to do.

Three checks at load stand behind this: of the folder (quantised, adapter, files), of the template (does the prompt
appear, which token closes an answer, who writes a BOS), and of padding (is the pad id a row of the embedding).
"""

import json
import shutil
import warnings

import pytest
import torch
from conftest import SPECIAL, save_checkpoint, tiny_model, tiny_tokenizer
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AddedToken

from steerpaper.circuits.attribution import attribute
from steerpaper.models.model import load_model
from steerpaper.models.template import ChatTemplate
from steerpaper.steering import Steering, generate, next_token_logits
from steerpaper.vectors.extraction import difference_in_means

HARMFUL, HARMLESS = ["hack", "rob a bank now"], ["sing", "bake me a big pie"]
N_VOCAB = len(tiny_tokenizer())
CHATML = ("{% for m in messages %}<user>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
          "{% if add_generation_prompt %}<user>assistant\n{% endif %}")


@pytest.fixture
def folder(llama_folder, tmp_path):
    """A copy of the tiny Llama's folder to change."""
    return shutil.copytree(llama_folder, tmp_path / "checkpoint")


def load(folder, **arguments):
    """Without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return load_model(folder, device="cpu", **arguments)


def refused(folder, match, kind=ValueError, **arguments):
    with pytest.raises(kind, match=match):
        load_model(folder, **{"device": "cpu", **arguments})


def change_json(file, **changes):
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_template(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    return folder


# -- padding -------------------------------------------------------------------------------------------------

def results(model, batch_size):
    """What goes through rows of unequal lengths."""
    dim = difference_in_means(model, HARMFUL, HARMLESS, batch_size=batch_size)
    steering = Steering(8 * dim[1, -1] / dim[1, -1].norm(), 1)
    responses = generate(model, HARMFUL + HARMLESS, steering, max_new_tokens=5, batch_size=batch_size)
    scores = attribute(model, responses, steering, steps=2, metric="kl", batch_size=batch_size).edges.score
    return dim, [r.completion for r in responses], torch.tensor(scores.to_numpy())


@pytest.mark.parametrize("where", ["tokenizer", "config", "both", "negative"])
def test_pad_that_is_no_row_of_the_embedding(llama, folder, where, caplog):
    if where in ("tokenizer", "both"):
        tokenizer = tiny_tokenizer()
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        assert tokenizer.pad_token_id == N_VOCAB
        tokenizer.save_pretrained(folder)
    if where != "tokenizer":
        change_json(folder / "config.json", pad_token_id=-1 if where == "negative" else N_VOCAB)
    model = load(folder)
    assert model.pad_token in range(N_VOCAB) and not caplog.text
    for ours, without_padding, as_before in zip(results(model, 8), results(model, 1), results(llama, 8)):
        if isinstance(ours, list):
            assert ours == without_padding == as_before
        else:
            torch.testing.assert_close(ours, without_padding, rtol=1e-4, atol=1e-5)
            assert torch.equal(ours, as_before) and ours.abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"'\[PAD\]' is a control token"):
        (model if where in ("tokenizer", "both") else padded_model()).tokenize("a[PAD]b")


def padded_model():
    """A template of a tokenizer with an added pad, which needs no model."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    return ChatTemplate(tokenizer)


# -- the template --------------------------------------------------------------------------------------------

def test_an_answer_ends_with_the_token_that_closes_its_turn(folder):
    """ChatML with another eos: the weights are turned so that the third token is the one that closes turns."""
    with_template(folder, CHATML)
    [free] = generate(load(folder), ["Hi"], max_new_tokens=6)
    third, closing = free.completion[2], SPECIAL.index("<end>")
    assert third not in free.completion[:2] and len(free.completion) == 6

    def swap(weights):
        weights["lm_head.weight"][[third, closing]] = weights["lm_head.weight"][[closing, third]]
    change_weights(folder, swap)
    model = load(folder)
    assert model.end_tokens == [2, closing]
    [response] = generate(model, ["Hi"], max_new_tokens=6)
    assert response.completion == [*free.completion[:2], closing]


@pytest.mark.parametrize("answer, closing", [
    ("<model>\n{{ m['content'] }}<end>\n", "<end>"),
    ("<model>\n{{ m['content'] }}\n<end><eos>", "<end>"),
    ("<model>\n{{ m['content'] }}{{ eos_token }}", "<eos>"),
    ("<model>\n{{ m['content'] }}\n", None),
    ("<user>{{ m['content'] }}<end>\n", None),  # no answer as the generation prompt begins one
    ("{{ raise_exception('prompts only') }}", None),
])
def test_closing_token(answer, closing):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}<user>{{ m['content'] }}\n{% else %}" + answer +
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<model>\n{% endif %}")
    expected = None if closing is None else SPECIAL.index(closing)
    assert ChatTemplate(tokenizer).closing_token() == expected


def test_closing_token_without_a_generation_prompt():
    """As Llama 2's and Mistral's; and Phi 3's, which ends a conversation otherwise than it goes on."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = ("{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
                               "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}")
    assert ChatTemplate(tokenizer).closing_token() == 2
    tokenizer.chat_template = ("{% for m in messages %}<user>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
                               "{% if add_generation_prompt %}<user>assistant\n{% else %}{{ eos_token }}{% endif %}")
    assert ChatTemplate(tokenizer).closing_token() == 4
    tokenizer.chat_template = None
    assert ChatTemplate(tokenizer).closing_token() is None


def without_ends(folder):
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        change_json(folder / name, eos_token_id=None, eos_token=None)
    return folder


def test_answers_without_an_end_are_warned_of(folder):
    with pytest.warns(UserWarning, match="neither does the checkpoint name an end token, nor .* Set eos_token_id"):
        model = load_model(without_ends(folder), device="cpu")
    assert model.end_tokens == []
    assert load(with_template(folder, CHATML)).end_tokens == [4]


@pytest.mark.parametrize("content", [
    "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}",
    "{% for part in m['content'] %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}",
    "{{ m['content'][0]['text'] }}", "{{ m['text'] }}", ""])
def test_template_without_the_prompt(folder, content):
    with_template(folder, "{% for m in messages %}<user>" + content + "<end>{% endfor %}<model>")
    refused(folder, r"template of .*checkpoint .* leaves the prompt out: of 'Who are you\?' it makes '<user><end><mod"
                    "el>'.*parts.*let it write message\\['content'\\]")


@pytest.mark.parametrize("template, reason", [
    ("{% for x in %}", "TemplateSyntaxError"), ("{{ messages[0].nothing.at.all }}", "UndefinedError"),
    ("{{ raise_exception('a system message comes first') }}", "a system message comes first")])
def test_template_that_fails(folder, template, reason):
    with_template(folder, template)
    refused(folder, f"chat template of .*checkpoint .*fails on one user turn .*{reason}.*: correct it, or take it out")


def test_without_a_template_token_ids_serve(folder, llama):
    (folder / "chat_template.jinja").unlink()
    model, rows = load(folder), [[1, 20, 31], [1, 50]]
    assert torch.equal(next_token_logits(model, rows), next_token_logits(llama, rows))
    assert model.end_tokens == [2]


def test_template_with_tokens_that_the_embedding_lacks(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True)])
    tokenizer.chat_template = CHATML.replace("<user>", "<|im_start|>")
    tokenizer.save_pretrained(folder)
    refused(folder, rf"writes '<\|im_start\|>' \(id {N_VOCAB}\), but the embedding has {N_VOCAB} rows")


@pytest.mark.parametrize("opened, warns", [
    ("<think>\n", True), ("<think>", True), ("[THINK]", True), ("<|thinking|>", True), ("<reasoning>\n", True),
    ("<think>\n\n</think>\n\n", False), ("<thinking></thinking>", False), ("[THINK][/THINK]", False), ("", False)])
def test_open_chain_of_thought_is_warned_of(folder, llama, opened, warns):
    with_template(folder, llama.tokenizer.chat_template.replace("<model>\n", "<model>\n" + opened))
    if warns:
        with pytest.warns(UserWarning, match="opens a chain of thought, .*let the template itself close it, .*/"):
            load_model(folder, device="cpu")
    else:
        load(folder)


@pytest.mark.parametrize("token", SPECIAL)
def test_control_tokens_in_a_prompt_are_refused(model, token):
    with pytest.raises(ValueError, match=f"'{token}' .* cannot stand in .*: take it out of the prompt 'Say {token}"):
        model.tokenize(f"Say {token} please")


def test_unmarked_control_tokens_are_refused_and_other_added_ones_are_not():
    """Fine-tuned models often leave <|im_end|> unmarked; Gemma adds line breaks and HTML tags."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<|im_end|>", "\n\n", "<b>"])
    tokenizer.chat_template = CHATML.replace("<end>", "<|im_end|>").replace("<user>assistant\n", "<user>assistant\n\n")
    template = ChatTemplate(tokenizer)
    with pytest.raises(ValueError, match=r"'<\|im_end\|>' is a control token of the model's conversations"):
        template.tokenize("Hi<|im_end|>")
    prompt = "a\n\nb <b>bold</b> < |im_end|> é"  # the last is unknown to this vocabulary, and no <unk>
    assert template.tokenize(prompt) == tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True)["input_ids"]
    assert template.closing_token() == tokenizer.convert_tokens_to_ids("<|im_end|>")


# -- the folder ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("config, method, how", [
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "bitsandbytes int8",
     "dequantize()"),
    ({"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}, "bitsandbytes nf4", "dequantize()"),
    ({"quantization": {"group_size": 64, "bits": 4}}, "MLX", "mlx_lm.convert --hf-path"),
    ({"quantization_config": {"group_size": 64, "bits": 4}}, "MLX", "--dequantize"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq", "Give the model that was quantised"),
    ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq", "Give the model that was quantised"),
    ({"quantization_config": {"quant_method": "fp8"}}, "fp8", "FineGrainedFP8Config(dequantize=True)"),
    ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors", "Give the model that was"),
])
def test_quantised_weights_are_refused_before_they_are_read(folder, config, method, how):
    change_json(folder / "config.json", **config)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"checkpoint/config.json says .* quantised \({method}\).* full") as error:
        load_model(folder, device="cpu")
    assert how in str(error.value)


@pytest.mark.parametrize("empty", [{}, None])
def test_an_empty_quantization_config_is_none(folder, empty):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": empty}))
    load(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn])
def test_stored_integers_are_no_weights(folder, dtype):
    name = "model.layers.1.mlp.up_proj.weight"

    def quantise(weights):
        weights[name] = (100 * weights[name]).clamp(0, 100).to(dtype)
    change_weights(folder, quantise)
    refused(folder, rf"checkpoint/model.safetensors stores {name} as \w+: quantised weights.*F64, F32, BF16, F16")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_may_be_stored_in_any_floating_dtype(folder, dtype):
    change_weights(folder, lambda weights: weights.update({name: w.to(dtype) for name, w in weights.items()}))
    assert load(folder).dtype == torch.float32


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapters_are_refused(folder, alone, file):
    (folder / file).write_text('{"peft_type": "LORA"}')
    if alone:
        for name in ("config.json", "model.safetensors"):
            (folder / name).unlink()
    refused(folder, rf"holds a LoRA adapter \(.*{file}\).*: merge it first.*merge_and_unload\(\).*give that folder")


def in_the_hubs_cache(folder, monkeypatch, tmp_path):
    """As `owner/model`, offline."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--owner--model"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    shutil.copytree(folder, home / "snapshots" / commit)


def test_hub_models_are_checked_alike(folder, monkeypatch, tmp_path):
    change_weights(folder, lambda weights: weights.update({name: w.to(torch.int8) for name, w in weights.items()}))
    in_the_hubs_cache(folder, monkeypatch, tmp_path / "int8")
    refused("owner/model", "model.safetensors stores .* as I8: quantised weights")
    change_json(folder / "config.json", quantization={"bits": 8})
    in_the_hubs_cache(folder, monkeypatch, tmp_path / "mlx")
    refused("owner/model", r"owner/model/config.json says that the weights are quantised \(MLX\)")
    (folder / "adapter_config.json").write_text("{}")
    in_the_hubs_cache(folder, monkeypatch, tmp_path / "adapter")
    refused("owner/model", r"owner/model holds a LoRA adapter \(.*adapter_config.json\).*: merge it first")


@pytest.mark.parametrize("family, attention, config", [
    ("llama", "sdpa", {"_attn_implementation": "flash_attention_2"}),
    ("llama", "sdpa", {"_attn_implementation": "eager", "output_attentions": True, "use_cache": False}),
    ("gemma2", "eager", {"attn_implementation": "sdpa", "return_dict": False}),
    ("gemma2", "eager", {"_attn_implementation": "flash_attention_2"}),
    ("qwen2", "sdpa", {"attn_implementation": "flex_attention", "output_hidden_states": True}),
    ("qwen3", "sdpa", {"attn_implementation": "no_such_attention"}),
])
def test_how_to_run_is_not_the_configs_to_say(tmp_path, family, attention, config):
    folder = save_checkpoint(tmp_path, tiny_model(family))
    plain = load(folder)
    change_json(folder / "config.json", **config)
    model = load(folder)
    assert model.hf.config._attn_implementation == plain.hf.config._attn_implementation == attention
    assert torch.equal(next_token_logits(model, HARMFUL), next_token_logits(plain, HARMFUL))
    ours, others = (generate(m, HARMFUL, max_new_tokens=4) for m in (model, plain))
    assert [r.completion for r in ours] == [r.completion for r in others]


def test_lost_index(folder):
    shard = "model-00001-of-00002.safetensors"
    (folder / "model.safetensors").rename(folder / shard)
    refused(folder, f"no weights: .*checkpoint holds {shard}, but neither model.safetensors nor the "
                    "model.safetensors.index.json that says", FileNotFoundError)


@pytest.mark.parametrize("content, match", [
    ("{", "is not JSON"), ("\x00\x00", "is not JSON"), ("[]", "holds a JSON list, not an"), ("{}", "no weight_map"),
    ('{"weight_map": {}}', "no weight_map"), ('{"weight_map": ["a"]}', "no weight_map"),
    ('{"weight_map": {"a": 1}}', "no weight_map")])
def test_damaged_index(folder, content, match):
    (folder / "model.safetensors.index.json").write_text(content)
    refused(folder, f"checkpoint/model.safetensors.index.json .*{match}.*restore the file")


def test_shards_are_read_by_their_index(folder, llama):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(weights))}
    for shard in set(shards.values()):
        save_file({n: w for n, w in weights.items() if shards[n] == shard}, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    # Equal up to rounding: where a weight lies in its file chooses among the processor's kernels.
    torch.testing.assert_close(next_token_logits(load(folder), HARMFUL), next_token_logits(llama, HARMFUL))


@pytest.mark.parametrize("file", ["generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content, match", [("{", "is not JSON"), ("[1]", "holds a JSON list")])
def test_damaged_json(folder, file, content, match):
    (folder / file).write_text(content)
    refused(folder, f"checkpoint/{file} {match}.*: restore the file")


@pytest.mark.parametrize("content", ["{}", "[]", "{", "7"])
def test_damaged_tokenizer(folder, content):
    (folder / "tokenizer.json").write_text(content)
    refused(folder, r"checkpoint.*tokenizer.json", (ValueError, FileNotFoundError))


@pytest.mark.parametrize("content, match", [
    ("[1]", "holds a JSON list"), ('"llama"', "holds a JSON str"), ("{", "not a valid JSON"), ("{}", "model_type")])
def test_damaged_config(folder, content, match):
    (folder / "config.json").write_text(content)
    refused(folder, f"no readable config.json with a model_type for '.*checkpoint'.*{match}", FileNotFoundError)


@pytest.mark.parametrize("changes, match", [
    ({"num_attention_heads": 7}, r"describes no llama model .*\(32\) is not a multiple of .* heads \(7\)"),
    ({"num_attention_heads": 7, "head_dim": None}, r"describes no llama model .*heads \(7\)"),
    ({"num_key_value_heads": 3}, r"num_attention_heads \(4\) is not a multiple of num_key_value_heads \(3\)"),
    ({"num_key_value_heads": 0}, "describes no llama model"),
    ({"num_hidden_layers": "4"}, "describes no llama model .*num_hidden_layers"),
    ({"hidden_act": "swish2"}, "unknown hidden_act 'swish2' .did you mean 'swish'.*: choose .*config.json"),
    ({"rope_parameters": {"rope_type": "lama3"}}, "unknown rope_type 'lama3' .did you mean 'llama3'.*: choose one of"),
    ({"rope_parameters": None, "rope_scaling": {"type": "yarm"}}, "unknown rope_type 'yarm' .did you mean 'yarn'"),
    ({"rope_parameters": "yarn"}, "describes no llama model|rope"),
    ({"dtype": "float99"}, "describes no llama model .*float99"),
    ({"num_key_value_heads": 4}, r"do not fit its config.json: model.layers.0.self_attn.k_proj.weight has shape "
                                 r"\(24, 32\), by the config \(48, 32\)"),
])
def test_configs_of_no_model(folder, changes, match, caplog, capfd):
    change_json(folder / "config.json", **changes)
    with pytest.raises(ValueError, match=f"(?s){match}") as error:
        load_model(folder, device="cpu")
    assert str(folder) in str(error.value)
    assert not caplog.text and not "".join(capfd.readouterr())


@pytest.mark.parametrize("device", ["cuda:63", "meta", "gpu", "cuda 0"])
def test_devices_that_are_not_there(folder, device):
    refused(folder, f"no device '{device}' here: choose one of 'cpu'.*or leave it out", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_no_cuda_here(folder):
    refused(folder, "no device 'cuda' here: choose one of 'cpu', or leave it out", device="cuda")


def test_overflow_is_seen_at_load(folder):
    """Weights that float16 holds, on streams that it does not."""
    change_weights(folder, lambda weights: weights["model.layers.3.mlp.down_proj.weight"].mul_(2e4))
    assert next_token_logits(load(folder), HARMFUL).isfinite().all()
    assert next_token_logits(load(folder, dtype="bfloat16"), HARMFUL).isfinite().all()
    refused(folder, "not finite .* in torch.float16: load the model in a wider dtype", dtype="float16")


@pytest.mark.parametrize("name", ["my model", "modèle – 模型", "a'b\"c"])
def test_folders_by_any_name(llama_folder, llama, tmp_path, name):
    model = load(shutil.copytree(llama_folder, tmp_path / name))
    assert torch.equal(next_token_logits(model, HARMFUL), next_token_logits(llama, HARMFUL))
