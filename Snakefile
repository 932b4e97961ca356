# Every notebook of the argument on every preset, executed by papermill.
#
#     snakemake --cores 2 --config presets="organism-llama tiny"     (or the path of a checkpoint folder)
#
# The executed copy build/<preset>/NN_name.ipynb, git-ignored, tells whether a notebook has run here;
# that its figures are committed does not.

import re
import sys
from glob import glob
from pathlib import Path
from shlex import quote

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)
from steerpaper import paths
from steerpaper.presets import PRESETS as KNOWN
from steerpaper.presets import get_preset

# In reading order: the notebooks that each one builds upon and the names of what it writes.
NOTEBOOKS = {
    "01_extract_vectors": dict(
        after=[],
        figures=["dim_geometry", "dim_selection", "dim_sweep", "learned_curves", "table2_asr", "cosines"],
        tables=[
            "dim_candidates", "dim_selection", "dim_sweep", "pair_counts", "learned_grid", "learned_curves",
            "learned_coefficients", "table2_asr", "random_control", "dim_asr_by_kind", "cosines", "dim_examples",
            "examples",
        ],
        tensors=["dim", "ntp", "po", "pca", "random"],
    ),
    "02_patching_circuits": dict(
        after=["01_extract_vectors"],
        figures=[
            "effect_by_position", "completeness", "score_distribution", "patching_check", "fig2_faithfulness",
            "fig3_faithfulness", "fig3_interchange", "fig4_overlap", "fig13_circuit", "fig14_circuit_ntp",
            "fig15_circuit_po", "fig19_single_sets", "fig20_kl",
        ],
        tables=[
            "table3_patching_data", "effect_by_position", "identity_checks", "completeness", "edge_scores",
            "patching_check", "patched_edges", "fig2_faithfulness", "minimum_faithful", "fig3_faithfulness",
            "fig3_minimum_faithful", "fig3_interchange", "fig4_overlap", "table5_8_edge_types", "fig19_single_sets",
            "table9_positions", "fig20_kl",
        ],
        tensors=["dim_attribution", "ntp_attribution", "po_attribution", "pca_attribution"],
    ),
    "03_qk_freeze": dict(
        after=["01_extract_vectors"],
        figures=["table1_ablations", "freeze_by_layer", "attention_change"],
        tables=[
            "table1_ablations", "table1_average_drop", "freeze_parts", "freeze_by_layer", "freeze_examples",
            "freeze_agreement", "attention_change",
        ],
        tensors=[],
    ),
    "04_ov_decomposition": dict(
        after=["01_extract_vectors", "02_patching_circuits"],
        figures=["svv_coefficient", "svv_explained", "fig5_svv_tokens", "svv_preference", "svv_cosines"],
        tables=[
            "ov_identity", "svv_coefficient", "svv_explained", "mlp_constancy", "svv_tokens", "svv_preference",
            "svv_cosines", "svv_beside",
        ],
        tensors=[],
    ),
    "05_sparsification": dict(
        after=["01_extract_vectors", "02_patching_circuits"],
        figures=[
            "sparsity_by_threshold", "fig6_asr_by_sparsity", "fig11_asr_not_rescaled", "fig7_agreement",
            "top_dimensions", "side_effects", "table10_11_beside_paper",
        ],
        tables=[
            "sparsity_by_threshold", "table10_11_sparsity", "table10_11_second_set", "sparsity_for_90", "sparse_test",
            "fig7_agreement", "agreement_control", "top_dimensions", "sparse_circuit", "sparse_circuit_overlap",
            "side_effects",
        ],
        tensors=[],
    ),
    "06_scorecard": dict(
        after=[
            "01_extract_vectors", "02_patching_circuits", "03_qk_freeze", "04_ov_decomposition", "05_sparsification",
        ],
        figures=["scorecard", "reported_measured"],
        tables=["scorecard_claims", "scorecard_cases", "scorecard_numbers", "paper_arithmetic"],
        tensors=[],
    ),
}

try:
    NAMES = re.findall(r"[^\s,]+", str(config.get("presets") or ""))
    PRESETS = [get_preset(name) for name in NAMES]
except ValueError as error:
    raise WorkflowError(str(error))
GIVEN = {preset.name: name if name == preset.name else preset.model for name, preset in zip(NAMES, PRESETS)}
if not PRESETS:
    raise WorkflowError(f"no preset: make figures PRESETS=... or make paper MODEL=... takes one of {', '.join(KNOWN)}")


def written(name):
    """What a notebook writes for any preset: the files that are committed, and those that are not."""
    about = NOTEBOOKS[name]
    figures = [f"figures/{{preset}}/{name}.{kind}" for name in about["figures"] for kind in ("svg", "png")]
    tables = [f"data/results/{{preset}}/{name}.csv" for name in about["tables"]]
    tensors = [f"data/artifacts/{{preset}}/{name}.safetensors" for name in about["tensors"]]
    return figures + tables, tensors


def is_shipped(wildcards):
    """Whether the model lies in the repository: small enough for any processor."""
    return Path(get_preset(wildcards.preset).model).is_relative_to(paths.ROOT)


def weights(wildcards):
    """The model's files, if it lies here and not on the hub."""
    files = [file for file in sorted(Path(get_preset(wildcards.preset).model).glob("*")) if file.is_file()]
    return [str(file.relative_to(paths.ROOT) if file.is_relative_to(paths.ROOT) else file) for file in files]


def given(wildcards):
    """What a notebook knows the preset by: its name, or the checkpoint folder that it was made for."""
    return quote(GIVEN[wildcards.preset])


rule all:
    default_target: True
    input:
        [
            path.format(preset=preset.name)
            for name in NOTEBOOKS
            for path in (f"build/{{preset}}/{name}.ipynb", *sum(written(name), []))
            for preset in PRESETS
        ],
        "build/results_page",


rule results_page:
    input:
        [f"build/{preset.name}/06_scorecard.ipynb" for preset in PRESETS],
    output:
        touch("build/results_page"),
    shell:
        f"{quote(sys.executable)} -m steerpaper.results"


for name, about in NOTEBOOKS.items():

    rule:
        name: f"notebook_{name}"
        message: f"{name} on {{wildcards.preset}}; log {{log}}, cells so far {{params.partial}}"
        input:
            notebook=f"notebooks/{name}.py",
            after=[f"build/{{preset}}/{earlier}.ipynb" for earlier in about["after"]],
            package=sorted(glob("steerpaper/*.py") + glob("steerpaper/*.mplstyle")),
            data=sorted(glob("data/prompts/*") + glob("data/corpus/*") + glob("data/paper/*") + glob("data/*.toml")),
            weights=weights,
        output:
            # With `update`, the old committed files stay until they are written anew.
            committed=update(written(name)[0]),
            tensors=written(name)[1],
            executed=f"build/{{preset}}/{name}.ipynb",
        params:
            source=f"build/{{preset}}/{name}.source.ipynb",
            partial=f"build/{{preset}}/{name}.partial.ipynb",
            # Batch by batch, for the next run if this one is interrupted; see steerpaper/resume.py.
            resume=f"build/{{preset}}/resume/{name[:2]}",
            python=f"{quote(sys.executable)} -m",
            given=given,
        log:
            f"build/{{preset}}/{name[:2]}.log",
        # What most others wait for goes first, so that no core is idle at the end.
        priority: sum(name in other["after"] for other in NOTEBOOKS.values())
        # One thread for the shipped models: two notebooks side by side are faster than one on two threads, and sums
        # do not depend on how many presets were asked for. Others get a GPU, or else as many threads as there are.
        threads: lambda wildcards: 1 if is_shipped(wildcards) else 16
        resources:
            gpu=lambda wildcards: 0 if is_shipped(wildcards) else 1,
        shell:
            """
            exec > {log} 2>&1
            export OMP_NUM_THREADS={threads}
            export STEERPAPER_RESUME=$PWD/{params.resume}
            {params.python} jupytext --quiet --to ipynb --output {params.source} {input.notebook}
            {params.python} papermill -k python3 -p preset {params.given} {params.source} {params.partial}
            for file in {output.committed} {output.tensors}; do
                [ $file -nt {params.source} ] || {{ echo "{input.notebook} did not write $file"; exit 1; }}
            done
            mv {params.partial} {output.executed}
            rm -rf {params.resume}
            """
