"""Cost of attribution and of circuit runs, as ratios to bare passes over the same tokens.

Attribution is measured against as many forward and backward passes from the steering layer on as it makes
steps, faithfulness (base and steered run included) against one whole forward pass. The bare passes take all
responses at once; attribution and faithfulness take them in batches of their own choice. Prints a table, and
writes it between the markers `<!-- bench -->` and `<!-- /bench -->` of docs/cost.md where it has them. The model
is random: 10 layers, width 256, 8 heads, steered at layer 4; 8 responses of 128 tokens.
"""

import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.recovery import faithfulness
from steerpaper.circuits.graph import Graph
from steerpaper.models.model import Model
from steerpaper.models.responses import Response, teacher_forcing
from steerpaper.steering import Steering

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cost.md"
STEPS, LAYER, TOKENS, RESPONSES, REPEATS = 10, 4, 128, 8, 5


def random_model(n_kv_heads: int) -> Model:
    """The random model, with a tokenizer that nothing reads."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=768, num_hidden_layers=10, num_attention_heads=8,
        num_key_value_heads=n_kv_heads, max_position_embeddings=256, tie_word_embeddings=False)
    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(1024)}, unk_token="0"))
    return Model(LlamaForCausalLM(config), PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def bare_passes(model: Model, batch, stream: torch.Tensor, kept: int) -> None:
    """T forward and backward passes from the steering layer on: the gradient of the logits' sum at h^l."""
    for _ in range(STEPS):
        leaf = stream.clone().requires_grad_()
        with model.trace(batch.input_ids, batch.attention_mask, logits_to_keep=kept):
            model.start_at(LAYER, leaf)
            logits = model.logits.save()
        torch.autograd.grad(logits.sum(), leaf)


@torch.no_grad()
def bare_forward(model: Model, batch, kept: int) -> None:
    """One forward pass through all layers."""
    model.hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=kept,
             use_cache=False)


def seconds(*calls: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Median time of each call; they take turns, so that a busy machine slows all alike."""
    times = [[] for _ in calls]
    for repeat in range(REPEATS + 1):  # the first round warms up
        for call, own in zip(calls, times):
            start = clock()
            call()
            own.append(clock() - start)
    return [statistics.median(own[1:]) for own in times]


def growth(n_kv_heads: int, which: int) -> int:
    """KiB by which a call raises this process's resident memory at most (Linux only)."""
    cases(n_kv_heads, n_tokens=16)[which]()  # loads what is loaded late
    call = cases(n_kv_heads)[which]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    start = peak()
    call()
    return peak() - start


def peak() -> int:
    """The highest resident memory of this process so far, in KiB."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def cases(n_kv_heads: int, n_tokens: int = TOKENS) -> list[Callable[[], object]]:
    """What is compared: T bare passes, attribution, one bare forward pass, one circuit's faithfulness."""
    model = random_model(n_kv_heads)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 1024, (RESPONSES, n_tokens), generator=generator).tolist()
    responses = [Response(ids[:n_tokens // 4], ids[n_tokens // 4:]) for ids in tokens]
    steering = Steering(torch.randn(256, generator=generator), LAYER)
    batch, kept = teacher_forcing(model, responses), n_tokens - n_tokens // 4 + 1
    with torch.no_grad(), model.trace(batch.input_ids, batch.attention_mask):
        stream = model.layer(LAYER).input.save()
    graph = Graph.of(model, LAYER)
    circuit = Circuit.random(graph, graph.n_edges // 10, seed=0)
    return [lambda: bare_passes(model, batch, stream, kept),
            lambda: attribute(model, responses, steering, steps=STEPS),
            lambda: bare_forward(model, batch, kept),
            lambda: faithfulness(model, circuit, responses, steering)]


def row(n_kv_heads: int) -> str:
    """One line of the table. Times are taken in this process, memory in fresh ones."""
    memory = []
    for which in (0, 1):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            memory.append(fresh.submit(growth, n_kv_heads, which).result())
    calls = cases(n_kv_heads)
    floor, attribution = seconds(*calls[:2])
    forward, run = seconds(*calls[2:])
    n_edges = Graph(10, 8, n_kv_heads, LAYER).n_edges
    return (f"| {n_kv_heads} | {n_edges:,} | {attribution / floor:.2f} | {memory[1] / memory[0]:.2f} "
            f"| {run / forward:.2f} |")


def of_one_row(heading: str, ratios: dict[str, float]) -> str:
    """A table of times by what was timed."""
    return "\n".join([
        "| " + " | ".join((heading, *ratios)) + " |", "| :-- " + "| --: " * len(ratios) + "|",
        "| " + " | ".join(("time", *(f"{ratio:.2f}" for ratio in ratios.values()))) + " |"])


def publish(table: str, name: str) -> None:
    """Print a table, and write it between its markers in docs/cost.md, where it has them."""
    print(table)
    text = PAGE.read_text(encoding="utf-8")
    markers = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    new = markers.sub(lambda found: found[1] + table + "\n" + found[2], text)
    if new != text:
        PAGE.write_text(new, encoding="utf-8")


def main() -> None:
    """Measure, print, and write to docs/cost.md."""
    table = "\n".join([
        "| key-value heads | edges | attribution, time | attribution, peak memory | faithfulness, time |",
        "| --: | --: | --: | --: | --: |", *(row(n) for n in (8, 2))])
    publish(table, "bench")


if __name__ == "__main__":
    main()
