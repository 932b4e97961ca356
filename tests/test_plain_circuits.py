"""The plain reference itself: it is Hugging Face's model, and its circuits and scores add up as they must."""

import math

import plain_circuits
import pytest
import torch
from conftest import tiny_model
from plain_circuits import (
    Kept,
    all_edges,
    all_targets,
    base_and_steered,
    circuit_logits,
    edge_scores,
    everything,
    head_writes,
    kept_positions,
    metric,
    node_scores,
    normed,
    patched_effect,
    run,
    source_gradients,
    stream_entering,
    target_gradients,
)

# Longer than Gemma 2's sliding window of 6.
IDS = [1, 20, 31, 45, 60, 22, 23, 90, 17, 33, 80, 12, 9]
N_PROMPT = 6
LAYER = 1
ALPHA = 2.0
VECTOR = torch.randn(32, generator=torch.Generator().manual_seed(5))
STEERED = (IDS, VECTOR, ALPHA, LAYER)
SCORED = (IDS, N_PROMPT, VECTOR, ALPHA, LAYER)


@pytest.fixture(scope="module", params=["llama", "gemma2", "qwen3"])
def hf(request):
    return tiny_model(request.param).eval()


@pytest.fixture
def exact(hf, monkeypatch):
    """The model in float64, also where Hugging Face's code asks for float32 (norms, softmax, rotary)."""
    family = hf.config.model_type
    model = tiny_model(family, attn_implementation="eager").eval().double()
    if family == "gemma2":
        model.model.embed_tokens.embed_scale.fill_(math.sqrt(model.config.hidden_size))
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return model


@torch.no_grad()
def hugging_face_logits(model, ids=IDS, added=None, layer=LAYER):
    """Logits by Hugging Face, with a hook that adds to the residual stream entering a layer."""
    def add(module, args):
        return (args[0] + added, *args[1:])

    handle = None if added is None else model.model.layers[layer].register_forward_pre_hook(add)
    try:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        if handle is not None:
            handle.remove()


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# -- the forward ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("split_heads", [True, False])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_both_runs_equal_hugging_face_in_double(exact, layer, split_heads):
    base, steered = base_and_steered(exact, IDS, VECTOR, ALPHA, layer, split_heads)
    close(base.logits, hugging_face_logits(exact))
    close(steered.logits, hugging_face_logits(exact, added=ALPHA * VECTOR.double(), layer=layer))
    assert (steered.logits - base.logits).abs().max() > 0.1


def test_both_runs_equal_hugging_face_as_it_is(hf):
    base, steered = base_and_steered(hf, *STEERED)
    close(base.logits.float(), hugging_face_logits(hf), 1e-4)
    close(steered.logits.float(), hugging_face_logits(hf, added=ALPHA * VECTOR), 1e-4)


def test_window_scale_and_soft_caps_matter_to_the_tiny_gemma():
    """Without them the logits would be others, so that agreement above means something."""
    hf = tiny_model("gemma2")
    assert "sliding_attention" in hf.config.layer_types[LAYER:] and len(IDS) > hf.config.sliding_window
    expected = base_and_steered(hf, *STEERED)[0].logits
    for option, value in [("sliding_window", 100), ("attn_logit_softcapping", 1e6),
                          ("final_logit_softcapping", 1e6), ("query_pre_attn_scalar", 12)]:
        changed = tiny_model("gemma2", **{option: value})
        assert (base_and_steered(changed, *STEERED)[0].logits - expected).abs().max() > 1e-3, option


@torch.no_grad()
def test_sources_are_the_writes_of_hugging_faces_modules(exact):
    """Heads sum to what attention adds, MLPs write what the MLP adds, the stream enters where it should."""
    seen = {}
    handles = []
    for index, block in enumerate(exact.model.layers):
        gemma2 = exact.config.model_type == "gemma2"
        attention = block.post_attention_layernorm if gemma2 else block.self_attn.o_proj
        mlp = block.post_feedforward_layernorm if gemma2 else block.mlp
        for key, module in [("a", attention), ("m", mlp)]:
            handles.append(module.register_forward_hook(
                lambda module, args, out, name=f"{key}{index}": seen.update({name: out[0]})))
        handles.append(block.register_forward_pre_hook(
            lambda module, args, name=f"h{index}": seen.update({name: args[0][0]})))
    hugging_face_logits(exact)
    for handle in handles:
        handle.remove()
    sources = base_and_steered(exact, *STEERED)[0].sources
    close(sources["steer"], seen[f"h{LAYER}"])
    for index in range(LAYER, exact.config.num_hidden_layers):
        heads = [sources[f"a{index}.h{head}"] for head in range(exact.config.num_attention_heads)]
        close(sum(heads), seen[f"a{index}"])
        close(sources[f"m{index}"], seen[f"m{index}"])


@torch.no_grad()
def test_each_head_is_what_hugging_face_writes_when_the_others_are_silenced(exact):
    """By zeroing all other heads in front of `o_proj`; Gemma's post-norm undone by the RMS of all heads."""
    d_head, block = exact.model.layers[0].self_attn.head_dim, exact.model.layers[LAYER]
    seen = {}
    handle = block.self_attn.o_proj.register_forward_hook(
        lambda module, args, out: seen.update(before=args[0][0], sum=out[0]))
    hugging_face_logits(exact)
    handle.remove()
    sources = base_and_steered(exact, *STEERED)[0].sources
    for head in range(exact.config.num_attention_heads):
        alone = torch.zeros_like(seen["before"])
        alone[:, head * d_head:(head + 1) * d_head] = seen["before"][:, head * d_head:(head + 1) * d_head]
        write = block.self_attn.o_proj(alone)
        if exact.config.model_type == "gemma2":
            mean_square = seen["sum"].pow(2).mean(-1, keepdim=True) + exact.config.rms_norm_eps
            write = (1 + block.post_attention_layernorm.weight) * write / mean_square.sqrt()
        close(sources[f"a{LAYER}.h{head}"], write)


# -- the graph and circuits -------------------------------------------------------------------------------

@pytest.mark.parametrize("split_heads", [True, False])
def test_the_graph_is_what_the_run_reads(hf, split_heads):
    seen = []

    def read(target, sources):
        seen.extend((source, target) for source in sources)
        return everything(target, sources)

    run(hf, stream_entering(hf, IDS, LAYER), LAYER, read, split_heads)
    assert seen == all_edges(hf, LAYER, split_heads)
    n, heads = hf.config.num_hidden_layers - LAYER, hf.config.num_attention_heads
    t = heads + 2 * hf.config.num_key_value_heads + 1 if split_heads else 4
    later = t * n * (n - 1) // 2
    assert len(set(seen)) == len(seen) == n * t + 1 + heads * (2 * n + later) + n + later
    assert len(all_targets(hf, LAYER, split_heads)) == n * t + 1


@pytest.mark.parametrize("split_heads", [True, False])
def test_empty_and_full_circuits_are_the_two_runs(hf, split_heads):
    base, steered = base_and_steered(hf, *STEERED)
    edges = all_edges(hf, LAYER, split_heads)
    close(circuit_logits(hf, *STEERED, set(), split_heads), base.logits)
    close(circuit_logits(hf, *STEERED, set(edges), split_heads), steered.logits)
    half = circuit_logits(hf, *STEERED, set(edges[::2]), split_heads)
    assert (half - base.logits).abs().max() > 0.1 and (half - steered.logits).abs().max() > 0.1


def test_all_heads_of_a_split_circuit_are_the_unsplit_circuit(hf):
    unsplit = set(all_edges(hf, LAYER, split_heads=False)[::3])
    split = {(source, target) for source, target in all_edges(hf, LAYER)
             if (source, merged(target)) in unsplit}
    close(circuit_logits(hf, *STEERED, split), circuit_logits(hf, *STEERED, unsplit, split_heads=False))


def test_a_circuit_without_a_path_to_the_logits_changes_nothing(hf):
    edges = {edge for edge in all_edges(hf, LAYER) if edge[1] != "logits"}
    close(circuit_logits(hf, *STEERED, edges), base_and_steered(hf, *STEERED)[0].logits)
    edges = {edge for edge in all_edges(hf, LAYER) if edge[0] != "steer"}
    close(circuit_logits(hf, *STEERED, edges), base_and_steered(hf, *STEERED)[0].logits)


@torch.no_grad()
def test_a_circuit_computes_with_its_own_runs_sources(hf):
    """steer -> m3 -> logits by hand: the MLP sees the steering, the logits see the MLP, and that is all."""
    base, _ = base_and_steered(hf, *STEERED)
    s = ALPHA * VECTOR.double()
    mlp_norm = plain_circuits.norms_before(hf, 3)[1]
    write = plain_circuits.mlp_write(hf, 3, normed(hf, mlp_norm, base.inputs["m3"] + s))
    final = base.inputs["logits"] + write - base.sources["m3"]
    expected = plain_circuits.unembedded(hf, normed(hf, hf.model.norm, final))
    close(circuit_logits(hf, *STEERED, {("steer", "m3"), ("m3", "logits")}), expected)


@torch.no_grad()
def test_one_query_heads_input_reaches_that_head_alone(hf):
    """steer -> a3.h2<q> -> logits by hand; on Gemma every head of the layer feels the post-norm."""
    base, _ = base_and_steered(hf, *STEERED)
    norm = hf.model.layers[3].input_layernorm
    plain, steered = (normed(hf, norm, base.inputs["a3.h2<q>"] + x) for x in (0, ALPHA * VECTOR.double()))
    kv = [plain] * hf.config.num_key_value_heads
    writes = head_writes(hf, 3, [plain, plain, steered, plain], kv, kv)
    moved = [head for head, write in enumerate(writes)
             if (write - base.sources[f"a3.h{head}"]).abs().max() > 1e-9]
    assert moved == ([0, 1, 2, 3] if hf.config.model_type == "gemma2" else [2])
    final = base.inputs["logits"] + writes[2] - base.sources["a3.h2"]
    expected = plain_circuits.unembedded(hf, normed(hf, hf.model.norm, final))
    close(circuit_logits(hf, *STEERED, {("steer", "a3.h2<q>"), ("a3.h2", "logits")}), expected)


def test_unknown_edges_are_refused(hf):
    for edge in [("m3", "a3.h0<q>"), ("a3.h0", "a3.h1<q>"), ("steer", "a0.h0<q>"), ("steer", "a2<q>")]:
        with pytest.raises(ValueError, match="does not have"):
            circuit_logits(hf, *STEERED, {edge})
    with pytest.raises(ValueError, match="no such edge"):
        patched_effect(hf, *SCORED, ("m3", "a3.h0<q>"))


# -- attribution ------------------------------------------------------------------------------------------

def merged(target):
    """The same target, not split by head."""
    return f"{target.split('.')[0]}<{target[-2]}>" if ".h" in target else target


def effect_of_steering(hf):
    """m(M) - m(base), summed over kept positions; the number of these."""
    base, steered = base_and_steered(hf, *STEERED)
    kept = kept_positions(base.logits, steered.logits, N_PROMPT)
    return float((metric(steered.logits, kept) - metric(base.logits, kept)).sum()), len(kept)


def test_kept_positions(hf):
    base, steered = base_and_steered(hf, *STEERED)
    kept = kept_positions(base.logits, steered.logits, N_PROMPT)
    positions = [at.position for at in kept]
    assert min(positions) >= N_PROMPT - 1 and max(positions) <= len(IDS) - 2
    expected = [p for p in range(N_PROMPT - 1, len(IDS) - 1)
                if base.logits[p].argmax() != steered.logits[p].argmax()]
    assert positions == expected and len(kept) >= 3
    assert (metric(steered.logits, kept) > 0).all() and (metric(base.logits, kept) < 0).all()


def test_scores_of_the_steering_node_complete(hf):
    """Integrated gradients sum to the effect of steering; the midpoint rule's error goes with 1 / T**2."""
    effect, n = effect_of_steering(hf)
    errors = []
    for steps in (32, 64):
        scores, positions = edge_scores(hf, *SCORED, steps, split_heads=False)
        assert positions == n
        errors.append(sum(score for (source, _), score in scores.items() if source == "steer") - effect)
    assert abs(errors[-1]) < 1e-3 * abs(effect)
    assert 3.7 < errors[0] / errors[1] < 4.3


def test_scores_of_a_layer_are_the_sums_over_its_heads(hf):
    for norm_jacobian in (True, False):
        split, n = edge_scores(hf, *SCORED, 2, norm_jacobian=norm_jacobian)
        unsplit, n_unsplit = edge_scores(hf, *SCORED, 2, split_heads=False, norm_jacobian=norm_jacobian)
        assert n == n_unsplit and list(split) == all_edges(hf, LAYER)
        sums = dict.fromkeys(all_edges(hf, LAYER, split_heads=False), 0.0)
        for (source, target), score in split.items():
            sums[source, merged(target)] += score
        assert sums == pytest.approx(unsplit, rel=1e-9, abs=1e-9)


def test_a_nodes_score_is_the_sum_over_its_edges(hf):
    edges, n = edge_scores(hf, *SCORED, 3)
    nodes, n_nodes = node_scores(hf, *SCORED, 3)
    assert n == n_nodes and list(nodes) == list(base_and_steered(hf, *STEERED)[0].sources)
    sums = dict.fromkeys(nodes, 0.0)
    for (source, _), score in edges.items():
        sums[source] += score
    assert sums == pytest.approx(nodes, rel=1e-9, abs=1e-9)


def test_the_steering_nodes_gradient_gives_its_score(hf):
    gradients, _ = source_gradients(hf, *SCORED, 3)
    nodes, _ = node_scores(hf, *SCORED, 3)
    by_dimension = ALPHA * VECTOR.double() * gradients["steer"].sum(0)
    assert float(by_dimension.sum()) == pytest.approx(nodes["steer"], rel=1e-9)


def test_without_the_norms_jacobian(hf):
    """For the edges into the logits by the formula: W_U gives the gradient after the final norm."""
    steps = 4
    scores, _ = edge_scores(hf, *SCORED, steps, norm_jacobian=False)
    base, steered = base_and_steered(hf, *STEERED)
    kept = kept_positions(base.logits, steered.logits, N_PROMPT)
    unembedding = hf.lm_head.weight.detach().double()
    cap = getattr(hf.config, "final_logit_softcapping", None)
    for source in base.sources:
        difference, expected = steered.sources[source] - base.sources[source], 0.0
        for step in range(steps):
            _, midway = base_and_steered(hf, IDS, VECTOR, (step + 0.5) / steps * ALPHA, LAYER)
            for position, y, y_base in kept:
                rows = unembedding
                if cap is not None:
                    rows = rows * (1 - (midway.logits[position, :, None] / cap) ** 2)
                expected += float((rows[y] - rows[y_base]) @ difference[position]) / steps
        assert scores[source, "logits"] == pytest.approx(expected, rel=1e-9)
    exact, _ = edge_scores(hf, *SCORED, steps)
    assert abs(scores["steer", "logits"] - exact["steer", "logits"]) > 0.1


def test_the_norms_jacobian_is_all_that_lies_between_the_two_gradients(hf):
    """gradient before = (gamma g - x (x . gamma g) / (d rms^2)) / rms, for every target."""
    before, _ = target_gradients(hf, *SCORED, 1)
    after, _ = target_gradients(hf, *SCORED, 1, norm_jacobian=False)
    _, midway = base_and_steered(hf, IDS, VECTOR, ALPHA / 2, LAYER)
    assert list(before) == list(after) == all_targets(hf, LAYER)
    for target, x in midway.inputs.items():
        if target == "logits":
            norm = hf.model.norm
        else:
            attention_norm, mlp_norm = plain_circuits.norms_before(hf, int(target[1]))
            norm = mlp_norm if target[0] == "m" else attention_norm
        g = plain_circuits.gain(hf, norm) * after[target]
        size = (x.pow(2).mean(-1, keepdim=True) + hf.config.rms_norm_eps).sqrt()
        along = (x * g).sum(-1, keepdim=True) / (x.shape[-1] * size ** 2)
        close(before[target], (g - x * along) / size)


def test_patching_equals_a_score_when_steering_is_slight(hf, monkeypatch):
    """To first order in alpha an edge's score is its patched effect. With positions fixed by hand."""
    kept = [Kept(5, 20, 31), Kept(7, 8, 90), Kept(11, 50, 12)]
    monkeypatch.setattr(plain_circuits, "kept_positions", lambda *_: kept)
    slight = (IDS, N_PROMPT, VECTOR, 1e-5, LAYER)
    for split_heads in (True, False):
        scores, n = edge_scores(hf, *slight, 1, split_heads)
        assert n == 3
        largest = max(map(abs, scores.values()))
        for edge in all_edges(hf, LAYER, split_heads)[::7]:
            assert patched_effect(hf, *slight, edge) == pytest.approx(scores[edge], abs=1e-3 * largest)


@pytest.mark.parametrize("source", ["steer", "a1.h3", "m2"])
def test_patching_equals_hooks_on_hugging_face(exact, source):
    """Every edge from a source into the last layer, by overwriting one head's slice of a projection."""
    base, steered = base_and_steered(exact, *STEERED)
    kept = kept_positions(base.logits, steered.logits, N_PROMPT)
    difference = steered.sources[source] - base.sources[source]
    block, d_head = exact.model.layers[3], exact.model.layers[3].self_attn.head_dim
    n_heads, n_kv_heads = exact.config.num_attention_heads, exact.config.num_key_value_heads
    heads = [*(("q", head) for head in range(n_heads)), *(("k", head) for head in range(n_kv_heads)),
             *(("v", head) for head in range(n_kv_heads))]
    effects = []
    for letter, head in heads:
        projection = getattr(block.self_attn, f"{letter}_proj")
        rows = slice(head * d_head, (head + 1) * d_head)

        def overwrite(module, args, out, rows=rows):
            patched = block.input_layernorm(base.inputs["a3.h0<q>"] + difference) @ module.weight[rows].T
            return torch.cat([out[0, :, :rows.start], patched, out[0, :, rows.stop:]], dim=-1)[None]

        handle = projection.register_forward_hook(overwrite)
        patched = hugging_face_logits(exact)
        handle.remove()
        effects.append(float((metric(patched, kept) - metric(base.logits, kept)).sum()))
        edge = (source, f"a3.h{head}<{letter}>")
        assert patched_effect(exact, *SCORED, edge) == pytest.approx(effects[-1], rel=1e-9, abs=1e-9), edge
    assert len({round(effect, 6) for effect in effects}) == len(heads)
    mlp_norm = getattr(block, "pre_feedforward_layernorm", block.post_attention_layernorm)
    for target, norm in [("m3", mlp_norm), ("logits", exact.model.norm)]:
        handle = norm.register_forward_pre_hook(lambda module, args: (args[0] + difference,))
        patched = hugging_face_logits(exact)
        handle.remove()
        expected = float((metric(patched, kept) - metric(base.logits, kept)).sum())
        effect = patched_effect(exact, *SCORED, (source, target))
        assert effect == pytest.approx(expected, rel=1e-9, abs=1e-9), target


def test_patching_into_the_logits_is_the_circuit_of_that_edge(hf):
    """With nothing in between, patching one edge of the base run and a circuit of one edge are the same."""
    base, steered = base_and_steered(hf, *STEERED)
    kept = kept_positions(base.logits, steered.logits, N_PROMPT)
    circuit = circuit_logits(hf, *STEERED, {("steer", "logits")})
    expected = float((metric(circuit, kept) - metric(base.logits, kept)).sum())
    assert patched_effect(hf, *SCORED, ("steer", "logits")) == pytest.approx(expected, rel=1e-9)


def test_a_response_whose_predictions_do_not_change_scores_nothing(hf):
    arguments = (IDS, N_PROMPT, VECTOR, 0.0, LAYER)
    edges, n = edge_scores(hf, *arguments, 2)
    nodes, n_nodes = node_scores(hf, *arguments, 2)
    assert n == n_nodes == 0 and set(edges.values()) == set(nodes.values()) == {0.0}
    assert patched_effect(hf, *arguments, ("steer", "logits")) == 0.0
