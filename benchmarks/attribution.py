"""Cost of attribution and of circuit runs, as ratios to bare passes over the same tokens in the same process.

Prints a table, and writes it between the markers `<!-- bench -->` and `<!-- /bench -->` of the README where it
has them. The model is random: 10 layers, width 256, 8 heads; 8 responses of 128 tokens.
"""

import gc
import re
import resource
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from steerpaper.attribution import attribute
from steerpaper.circuits import Circuit, faithfulness
from steerpaper.graph import Graph
from steerpaper.model import Model
from steerpaper.responses import Response, teacher_forcing
from steerpaper.steering import Steering

README = Path(__file__).resolve().parent.parent / "README.md"
STEPS, LAYER, PROMPT, TOKENS, RESPONSES, REPEATS = 10, 4, 32, 128, 8, 5


def random_model(n_kv_heads: int) -> Model:
    """The random model, with a tokenizer that nothing reads."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=768, num_hidden_layers=10, num_attention_heads=8,
        num_key_value_heads=n_kv_heads, max_position_embeddings=256, tie_word_embeddings=False)
    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(1024)}, unk_token="0"))
    return Model(LlamaForCausalLM(config), PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def bare_passes(model: Model, batch, stream: torch.Tensor, kept: int) -> None:
    """T forward and backward passes from the steering layer on, with the gradient of the logits' sum at h^l."""
    for _ in range(STEPS):
        leaf = stream.clone().requires_grad_()
        with model.trace(batch.input_ids, batch.attention_mask, logits_to_keep=kept):
            model.start_at(LAYER, leaf)
            logits = model.logits.save()
        torch.autograd.grad(logits.sum(), leaf)


@torch.no_grad()
def bare_forward(model: Model, batch, kept: int) -> None:
    """One forward pass through all layers."""
    model.hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=kept, use_cache=False)


def seconds(*calls: Callable[[], object]) -> list[float]:
    """Median time of each call; they take turns, so that a busy machine slows all alike."""
    times = [[] for _ in calls]
    for repeat in range(REPEATS + 1):  # the first round warms up
        for call, own in zip(calls, times):
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return [statistics.median(own[1:]) for own in times]


def peak(call: Callable[[], object]) -> int:
    """Bytes that the process's resident memory grows by at most while the call runs, sampled every millisecond."""
    gc.collect()
    done, highest, start = threading.Event(), 0, resident()

    def watch():
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()
    finally:
        done.set()
        thread.join()
    return highest - start


def resident() -> int:
    """Bytes of resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def row(n_kv_heads: int) -> str:
    """One line of the table."""
    model = random_model(n_kv_heads)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 1024, (RESPONSES, TOKENS), generator=generator).tolist()
    responses = [Response(ids[:PROMPT], ids[PROMPT:]) for ids in tokens]
    steering = Steering(torch.randn(256, generator=generator), LAYER)
    batch, kept = teacher_forcing(model, responses), TOKENS - PROMPT + 1
    with torch.no_grad(), model.trace(batch.input_ids, batch.attention_mask):
        stream = model.layer(LAYER).input.save()
    graph = Graph.of(model, LAYER)
    circuit = Circuit.random(graph, graph.n_edges // 10, seed=0)
    calls = [lambda: bare_passes(model, batch, stream, kept),
             lambda: attribute(model, responses, steering, steps=STEPS, batch_size=RESPONSES)]
    floor, ours = seconds(*calls)
    forward, run = seconds(lambda: bare_forward(model, batch, kept),
                           lambda: faithfulness(model, circuit, responses, steering, batch_size=RESPONSES))
    memory = [peak(call) for call in calls]
    return (f"| {n_kv_heads} | {graph.n_edges:,} | {ours / floor:.2f} | {memory[1] / memory[0]:.2f} "
            f"| {run / forward:.2f} |")


def main() -> None:
    """Measure, print, and write to the README."""
    table = "\n".join([
        f"| kv heads | edges | attribution / {STEPS} forward+backward passes: time | peak memory "
        "| faithfulness of a circuit / forward passes |",
        "| --: | --: | --: | --: | --: |", *(row(n) for n in (8, 2))])
    print(table)
    text = README.read_text(encoding="utf-8")
    new = re.sub(r"(<!-- bench -->\n).*?(<!-- /bench -->)", lambda m: m[1] + table + "\n" + m[2], text, flags=re.DOTALL)
    if new != text:
        README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
