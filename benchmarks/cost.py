"""What the paper's two models cost: time and memory of each stage at their true sizes, with random weights.

On a GPU everything is measured there, in bfloat16, on models initialised at random on the device: what a pass costs
does not depend on the weights. Without one the same code runs on models of a few layers, to prove that it works, and
a line says "Not measured". Prints the table and writes it between the markers `<!-- cost -->` and `<!-- /cost -->`
of docs/cost.md; a measured table there is not replaced by one without measurements.

The last column carries the measured time per token over to the paper's data: the responses of table 3 (DIM), each
64 prompt and 512 response tokens long, the most there can be, and 100 + 100 test prompts for one freeze.
"""

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from attribution import PAGE, publish
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast

from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.recovery import faithfulness
from steerpaper.circuits.graph import Graph
from steerpaper.models.model import Model
from steerpaper.models.responses import Response, teacher_forcing
from steerpaper.paper.tables import reported
from steerpaper.steering import Steering, generate

STEPS, REPEATS = 10, 3
# The paper's data: tokens of a response at most, with its prompt, and of all answers to the test prompts.
LONGEST, TEST_TOKENS = 64 + 512, 200 * 512


@dataclass(frozen=True)
class Sizes:
    """How much is run: attribution's batch of responses and their length, prompts and new tokens of generation."""

    responses: int
    tokens: int
    prompts: int
    new_tokens: int


TRUE, REDUCED = Sizes(8, 256, 64, 192), Sizes(2, 24, 2, 6)
# Configurations as published with the weights, and the paper's steering layers.
MODELS: dict[str, tuple[PreTrainedConfig, int]] = {
    "gemma-2-2b-it": (Gemma2Config(
        num_hidden_layers=26, hidden_size=2304, num_attention_heads=8, num_key_value_heads=4, head_dim=256,
        intermediate_size=9216, vocab_size=256000, sliding_window=4096, query_pre_attn_scalar=256,
        max_position_embeddings=8192), 15),
    "llama-3.2-3b-instruct": (LlamaConfig(
        num_hidden_layers=28, hidden_size=3072, num_attention_heads=24, num_key_value_heads=8, head_dim=128,
        intermediate_size=8192, vocab_size=128256, tie_word_embeddings=True, max_position_embeddings=131072,
        rms_norm_eps=1e-5, rope_parameters={
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}), 12),
}
SMALL = dict(num_hidden_layers=4, hidden_size=96, head_dim=16, intermediate_size=96, vocab_size=512)


def random_model(config: PreTrainedConfig, device: str) -> Model:
    """A model with random weights, made on the device, and a tokenizer that nothing reads."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        hf = AutoModelForCausalLM.from_config(config, dtype=dtype)
    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(512)}, unk_token="0"))
    model = Model(hf, PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    model.end_tokens = []  # every response has its full length
    return model


def weights(config: PreTrainedConfig) -> tuple[float, float]:
    """Parameters in billions, and GiB on disk in bfloat16; nothing is allocated."""
    with torch.device("meta"):
        n = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    return n / 1e9, 2 * n / 2**30


def stages(model: Model, layer: int, sizes: Sizes) -> dict[str, tuple[Callable[[], object], int]]:
    """What is run in every stage, and for how many tokens."""
    generator = torch.Generator().manual_seed(1)
    prompt = sizes.tokens // 4
    rows = torch.randint(1, 512, (sizes.responses, sizes.tokens), generator=generator).tolist()
    responses = [Response(row[:prompt], row[prompt:]) for row in rows]
    prompts = torch.randint(1, 512, (sizes.prompts, prompt), generator=generator).tolist()
    steering = Steering(torch.randn(model.d_model, generator=generator), layer)
    batch, kept = teacher_forcing(model, responses), sizes.tokens - prompt + 1
    graph = Graph.of(model, layer)
    circuit = Circuit.random(graph, graph.n_edges // 10, seed=0)
    n, new = sizes.responses * sizes.tokens, sizes.prompts * sizes.new_tokens
    how = dict(max_new_tokens=sizes.new_tokens, batch_size=sizes.prompts)
    return {
        "forward and backward": (lambda: forward_backward(model, batch, kept), n),
        f"attribution, T = {STEPS}": (
            lambda: attribute(model, responses, steering, steps=STEPS, batch_size=len(responses)), n),
        "circuit run": (lambda: faithfulness(model, circuit, responses, steering, batch_size=len(responses)), n),
        "generation": (lambda: generate(model, prompts, steering, **how), new),
        "generation, QK frozen": (lambda: generate(model, prompts, steering, "qk", **how), new),
    }


def forward_backward(model: Model, batch, kept: int) -> None:
    """One bare pass through all layers, and back to the embeddings."""
    stream = model.hf.get_input_embeddings()(batch.input_ids).requires_grad_()
    logits = model.hf(inputs_embeds=stream, attention_mask=batch.attention_mask, logits_to_keep=kept,
                      use_cache=False).logits
    torch.autograd.grad(logits.sum(), stream)


def measured(call: Callable[[], object], device: str) -> tuple[float, float]:
    """Median seconds, and peak memory in GiB (weights included; missing without a GPU)."""
    call()  # warms up
    times = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    return statistics.median(times), peak


def full_tokens(name: str) -> dict[str, int]:
    """Tokens of the paper's whole data, by the first word of the stage."""
    table = reported("table3_patching_data", model=name, method="dim")
    steered = table[table.response_from == "steered"].responses.sum()
    return {"attribution": LONGEST * int(table.responses.sum()), "circuit": LONGEST * int(steered),
            "generation": TEST_TOKENS}


def rows_of(name: str, device: str) -> list[str]:
    """The lines of one model."""
    config, layer = MODELS[name]
    billions, disk = weights(config)
    lines = [f"| {name} | weights ({billions:.2f} B parameters, {disk:.1f} GiB on disk) | | | | |"]
    if device != "cuda":
        config = type(config)(**{**config.to_dict(), **SMALL, "layer_types": None})
    model, bare = random_model(config, device), None
    runs = stages(model, layer if device == "cuda" else 2, TRUE if device == "cuda" else REDUCED)
    for stage, (call, n) in runs.items():
        seconds, peak = measured(call, device)
        bare = bare or seconds / n
        print(f"{name}{'' if device == 'cuda' else ', reduced'}: {stage}: {n / seconds:,.0f} tokens/s, "
              f"{seconds / n / bare:.1f} bare passes", flush=True)
        total = full_tokens(name).get(stage.split(",")[0].split()[0])
        whole = "" if total is None else f"{total * seconds / n / 60:.1f} min"
        lines.append(f"| {name} | {stage} | {n / seconds:,.0f} | {peak:.1f} GiB | {seconds / n / bare:.1f} | {whole} |")
    return lines


def main() -> None:
    """Measure, print, and write to docs/cost.md."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [line for name in MODELS for line in rows_of(name, device)]
    if device == "cuda":
        lines = [f"On one {torch.cuda.get_device_name()}, bfloat16; random weights at the true sizes, no real ones.", "",
                 "| model | stage | tokens per second | peak memory | time per token, bare passes | all of the "
                 "paper's data |",
                 "| :-- | :-- | --: | --: | --: | --: |", *rows]
    else:
        lines = ["Not measured: no accelerator was at hand."]
    table, text = "\n".join(lines), PAGE.read_text(encoding="utf-8")
    if device == "cuda" or re.search(r"<!-- cost -->\n(Not measured|<!-- /cost -->)", text):
        publish(table, "cost")
    else:
        print(table)


if __name__ == "__main__":
    main()
