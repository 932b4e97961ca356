"""Each diff of docs/extending.md, applied to a copy of the package, adds what the page says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
DIFFS = dict(re.findall(r"^## (.+?)$(?:(?!^## ).)*?^```diff\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))

FAMILY = """
import sys, torch
from conftest import save_checkpoint, tiny_tokenizer
from transformers import ApertusConfig, ApertusForCausalLM
import steerpaper as sp

config = ApertusConfig(
    vocab_size=len(tiny_tokenizer()), hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    rope_parameters={"rope_type": "default", "rope_theta": 100.0})
hf, generator = ApertusForCausalLM(config).eval(), torch.Generator().manual_seed(0)
with torch.no_grad():
    for name, weight in hf.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.copy_(1 + 0.3 * noise if "norm" in name else 0.25 * noise)
model = sp.load_model(save_checkpoint(sys.argv[1], hf), device="cpu")
assert model.family == "apertus"
prompts = ["Hi", "What is it?", "bake a pie"]
vector, found = torch.randn(32, generator=generator), []
for alpha in (0.0, 3.0):
    add = hf.model.layers[2].register_forward_pre_hook(lambda layer, args: (args[0] + alpha * vector, *args[1:]))
    for response in sp.generate(model, prompts, sp.Steering(vector, 2, alpha), max_new_tokens=12):
        ids = torch.tensor([response.prompt])
        expected = hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
                               eos_token_id=model.end_tokens)[0, ids.shape[1]:]
        found.append(response.completion)
        assert found[-1] == expected.tolist()
    add.remove()
assert len({tuple(completion) for completion in found}) == 6  # each prompt its own, plain and steered
"""

METHOD = """
import torch
from conftest import tiny_model, tiny_tokenizer
import steerpaper as sp
from steerpaper.outputs import outputs

positive, negative = ["hack it", "rob a bank", "steal the car"], ["bake a pie", "sing"]
model, hf = sp.Model(tiny_model("llama"), tiny_tokenizer()), tiny_model("llama").eval()
dim = sp.Steering(sp.difference_in_means(model, positive, negative)[2, -3], 2)
given = sp.Ingredients(model, positive, negative, dim, -3, None, None, sp.get_preset("tiny"))
found = sp.METHODS["centred"].extract(given)

states = torch.stack([hf(torch.tensor([model.tokenize(prompt)]), output_hidden_states=True).hidden_states[2][0, -3]
                      for prompt in positive + negative]).detach()
states -= states.mean(0)
states /= states.norm(dim=1, keepdim=True)
expected = states[:3].mean(0) - states[3:].mean(0)
expected *= dim.vector.norm() / expected.norm()
torch.testing.assert_close(found.vector, expected, rtol=0, atol=1e-5)
assert 0.5 < torch.cosine_similarity(found.vector, dim.vector, dim=0) < 0.999
assert found.about["position"] == -3 and not sp.METHODS["centred"].baseline
assert sp.PALETTE["centred"] == sp.METHODS["centred"].colour and len(set(sp.PALETTE.values())) == len(sp.PALETTE)
assert "centred" in outputs()["01_extract_vectors"]["tensors"]
assert "centred_attribution" in outputs()["02_patching_circuits"]["tensors"]
"""

CONCEPT = """
from steerpaper.behaviour.guard import load_judge
from steerpaper.concepts import get_concept
from steerpaper.presets import Preset
from steerpaper.prompts import concept_prompts

concept = get_concept("lists")
for split in ("train", "validation", "test"):
    tables = concept_prompts(concept, split, 2, "built-in")
    assert list(tables) == ["enumerate", "tell"] and all(len(table) == 2 for table in tables.values())
    assert not set(tables["enumerate"].prompt) & set(tables["tell"].prompt)
    assert all(set(table.kind) == {name} for name, table in tables.items())  # which the files do not have
preset = Preset("mine", "owner/name", concept="lists")
assert load_judge(preset).expresses(["1. a spade 2. a rake", "It is 10.1 metres long.", "One."]) == [True, False, False]
"""


def test_the_page_has_a_diff_for_each_way_to_extend():
    assert list(DIFFS) == ["A model family", "A steering method", "A concept"]


@pytest.mark.parametrize("heading, code", [
    ("A model family", FAMILY), ("A steering method", METHOD),
    pytest.param("A concept", CONCEPT, marks=pytest.mark.skipif(
        not (ROOT / "steerpaper" / "concepts.py").exists(), reason="concepts.py is not there yet")),
])
def test_what_a_diff_adds_does_what_the_page_says(heading, code, tmp_path):
    for folder in ("steerpaper", "data/prompts", "data/corpus"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("notebooks/outputs.toml", "tests/conftest.py"):
        (tmp_path / file).parent.mkdir()
        shutil.copy(ROOT / file, tmp_path / file)
    applied = subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=DIFFS[heading], capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEERPAPER_")}
    environment |= {"PYTHONPATH": f"{tmp_path}{os.pathsep}{tmp_path / 'tests'}", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "model"], cwd=tmp_path, env=environment,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
