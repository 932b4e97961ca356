# Every notebook of the argument on every preset, executed by papermill.
#
#     snakemake --cores 2 --config presets="organism-llama tiny"
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
from steerpaper.presets import get_preset

# In reading order: the notebooks that each one builds upon and the names of what it writes.
NOTEBOOKS = {
    "01_extract_vectors": dict(
        after=[],
        figures=["dim_geometry", "dim_selection", "dim_sweep", "table2_asr"],
        tables=["dim_candidates", "dim_selection", "dim_sweep", "table2_asr", "dim_asr_by_kind", "dim_examples"],
        tensors=["dim"],
    ),
    "02_patching_circuits": dict(
        after=["01_extract_vectors"],
        figures=[
            "effect_by_position", "completeness", "score_distribution", "patching_check", "fig2_faithfulness",
            "fig13_circuit", "fig19_single_sets", "fig20_kl",
        ],
        tables=[
            "table3_patching_data", "effect_by_position", "identity_checks", "completeness", "edge_scores",
            "patching_check", "patched_edges", "fig2_faithfulness", "minimum_faithful", "table5_8_edge_types",
            "fig19_single_sets", "table9_positions", "fig20_kl",
        ],
        tensors=["dim_attribution"],
    ),
}

try:
    PRESETS = [get_preset(name) for name in re.findall(r"[^\s,]+", str(config.get("presets") or ""))]
except ValueError as error:
    raise WorkflowError(str(error))
if not PRESETS:
    raise WorkflowError("no preset: give one or more, e.g. make figures PRESETS=tiny")


def written(name):
    """What a notebook writes for any preset: the files that are committed, and those that are not."""
    about = NOTEBOOKS[name]
    figures = [f"figures/{{preset}}/{name}.{kind}" for name in about["figures"] for kind in ("svg", "png")]
    tables = [f"data/results/{{preset}}/{name}.csv" for name in about["tables"]]
    tensors = [f"data/artifacts/{{preset}}/{name}.safetensors" for name in about["tensors"]]
    return figures + tables, tensors


def weights(wildcards):
    """The model's files, if it lies in the repository and not on the hub."""
    folder = Path(get_preset(wildcards.preset).model)
    if not folder.is_relative_to(paths.ROOT):
        return []
    return [str(file.relative_to(paths.ROOT)) for file in sorted(folder.glob("*"))]


rule all:
    default_target: True
    input:
        [
            path.format(preset=preset.name)
            for name in NOTEBOOKS
            for path in (f"build/{{preset}}/{name}.ipynb", *sum(written(name), []))
            for preset in PRESETS
        ],


for name, about in NOTEBOOKS.items():

    rule:
        name: f"notebook_{name}"
        message: f"{name} on {{wildcards.preset}}; log {{log}}, cells so far {{params.partial}}"
        input:
            notebook=f"notebooks/{name}.py",
            after=[f"build/{{preset}}/{earlier}.ipynb" for earlier in about["after"]],
            package=sorted(glob("steerpaper/*.py") + glob("steerpaper/*.mplstyle")),
            data=sorted(glob("data/prompts/*") + glob("data/corpus/*") + glob("data/paper/*")),
            weights=weights,
        output:
            # With `update`, the old committed files stay until they are written anew.
            committed=update(written(name)[0]),
            tensors=written(name)[1],
            executed=f"build/{{preset}}/{name}.ipynb",
        params:
            source=f"build/{{preset}}/{name}.source.ipynb",
            partial=f"build/{{preset}}/{name}.partial.ipynb",
            python=f"{quote(sys.executable)} -m",
        log:
            f"build/{{preset}}/{name[:2]}.log",
        # One thread each: two notebooks side by side are faster than one on two threads, and sums do not
        # depend on how many presets were asked for.
        threads: 1
        shell:
            """
            exec > {log} 2>&1
            export OMP_NUM_THREADS={threads}
            {params.python} jupytext --quiet --to ipynb --output {params.source} {input.notebook}
            {params.python} papermill -k python3 -p preset {wildcards.preset} {params.source} {params.partial}
            for file in {output.committed} {output.tensors}; do
                [ $file -nt {params.source} ] || {{ echo "{input.notebook} did not write $file"; exit 1; }}
            done
            mv {params.partial} {output.executed}
            """
