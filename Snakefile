# Every notebook of the argument on every preset, executed by papermill.
#
#     snakemake --cores 2 --config presets="organism-llama tiny"     (or the path of a checkpoint folder or GGUF file)
#
# Everything is computed into build/<preset>, which git ignores; steerpaper/reproduction.py compares it with what is
# on record.

import os
import sys
from functools import partial
from glob import glob
from pathlib import Path
from shlex import quote

from snakemake.exceptions import WorkflowError
from snakemake.logging import DefaultFormatter

sys.path.insert(0, workflow.basedir)
from steerpaper import paths
from steerpaper.outputs import needed, outputs
from steerpaper.presets import PRESETS as KNOWN
from steerpaper.presets import as_given, get_preset, get_presets

# Of a job that failed, its name, what a cluster says of it, its log and what a cluster calls it, without all its files:
# profiles/workflow.py reads them, and says last what is in them.
DefaultFormatter._format_job_error = lambda _, job: [
    f"Error in rule {job['rule_name']}:",
    *(f"    message: {line}" for line in (job["rule_msg"] or "").splitlines()[:1]),
    *(f"    log: {log} (check log file(s) for error details)" for log in job["log"] or []),
    *(f"    {name}: {value}" for name, value in job["aux"].items())]

BUILD = os.path.relpath(paths.BUILD) if paths.BUILD.is_relative_to(paths.ROOT) else str(paths.BUILD)
NOTEBOOKS = outputs()
FIRST = next(iter(NOTEBOOKS))
PACKAGE = sorted(glob("steerpaper/**/*.py", recursive=True) + glob("steerpaper/**/*.mplstyle", recursive=True))
OWN_DATA = {file for about in NOTEBOOKS.values() for file in about.get("reads", [])}  # of some notebooks alone
DATA = sorted({*glob("data/prompts/*"), *glob("data/corpus/*"), *glob("data/paper/*"), *glob("data/*.toml")} - OWN_DATA)
# Computations, for the next run if this one is interrupted or if only prose, plots or rules change.
KEPT = f"{BUILD}/{{preset}}/kept"

GIVEN = config.get("presets") or ""
try:
    FOUND = [
        preset for names in (GIVEN if isinstance(GIVEN, list) else [GIVEN]) for preset in get_presets(str(names)).values()
    ]
except ValueError as error:
    raise WorkflowError(str(error))
PRESETS = list({preset.name: preset for preset in FOUND}.values())
OWN = [preset.name for preset in PRESETS if preset.name not in KNOWN and paths.results(preset.name).exists()]
if OWN and workflow.is_main_process:
    # Now, since Snakemake removes what a notebook has written before it starts. (Imported here: it takes seconds.)
    from steerpaper.artifacts import check_owner

    try:
        for name in OWN:
            check_owner(name)
    except (FileNotFoundError, ValueError) as error:
        raise WorkflowError(str(error))
if not PRESETS:
    raise WorkflowError(f"no preset: make figures PRESETS=... or make paper MODEL=... takes one of {', '.join(KNOWN)}")


def written(name):
    """What a notebook writes for any preset; of one that may end without (`only`), for those on which it does not."""
    about, folder = NOTEBOOKS[name], f"{BUILD}/{{preset}}"
    figures = [f"{folder}/figures/{figure}.{kind}" for figure in about["figures"] for kind in ("svg", "png")]
    tables = [f"{folder}/results/{table}.csv" for table in about["tables"]]
    tensors = [f"{folder}/artifacts/{tensor}.safetensors" for tensor in about["tensors"]]
    return figures + tables + tensors


def due(name):
    """Of that, what has to be there once the notebook has run."""
    return [] if "only" in NOTEBOOKS[name] else written(name)


def is_shipped(wildcards):
    """Whether the model comes with the repository: small enough for any processor."""
    return get_preset(wildcards.preset).shipped


def weights(wildcards):
    """The model's files, if it lies here and not on the hub; of a GGUF file, the word that it is dequantised; of an
    organism of another seed, what its training writes last."""
    model = Path(get_preset(wildcards.preset).model)
    if model.suffix == ".gguf":
        return f"{BUILD}/{wildcards.preset}/weights.txt"
    if model.is_relative_to(paths.BUILD / "organisms"):
        return f"{BUILD}/organisms/{model.name}/training.csv"
    files = [file for file in sorted(model.glob("*")) if file.is_file()]
    return [str(file.relative_to(paths.ROOT) if file.is_relative_to(paths.ROOT) else file) for file in files]


def wanted(preset, wildcards):
    """What there is to make for a preset: all, or where there is nothing to steer, the notebook that ends with that."""
    if not preset.shipped and preset.layer is None:  # organisms and the paper's models are known to refuse
        if Path(checkpoints.unsteered.get(preset=preset.name).output[0]).read_text().strip():
            return f"{BUILD}/{preset.name}/{FIRST}.ended.ipynb"
    return [path.format(preset=preset.name) for name in needed(preset.name)
            for path in (f"{BUILD}/{{preset}}/{name}.ipynb", *due(name))]


def given(wildcards):
    """What a notebook knows the preset by: its name, or the checkpoint folder or GGUF file that it was made for."""
    return quote(as_given(wildcards.preset))


# On the machine that starts the workflow: a cluster's nodes often reach no network.
localrules:
    weights,


rule all:
    default_target: True
    message: "done"
    input: [partial(wanted, preset) for preset in PRESETS]


rule weights:
    message: "weights of {wildcards.preset}, fetched and dequantised if they are not here"
    input: lambda wildcards: [get_preset(wildcards.preset).model] * os.path.isabs(get_preset(wildcards.preset).model)
    output: f"{BUILD}/{{preset}}/weights.txt"
    params:
        python=f"{quote(sys.executable)} -m",
        given=given,
    shell: "{params.python} steerpaper.models {params.given} > {output:q}"


rule organism:
    message: "training of the organism {wildcards.family}, seed {wildcards.seed}; log {log}"
    input: "steerpaper/organisms/training.py", "steerpaper/prompts/corpus.py", sorted(glob("data/corpus/*"))
    output: f"{BUILD}/organisms/{{family}}-{{seed}}/training.csv"
    params:
        python=f"{quote(sys.executable)} -m",
    log: f"{BUILD}/organisms/{{family}}-{{seed}}.log"
    wildcard_constraints:
        family=r"\w+",
        seed=r"\d+",
    threads: 1
    shell:
        """
        export OMP_NUM_THREADS={threads}
        {params.python} steerpaper.organisms {wildcards.family} {wildcards.seed} > {log:q} 2>&1
        """


checkpoint unsteered:
    message: "is there anything to steer in {wildcards.preset}? log {log}"
    input:
        package=PACKAGE,
        data=DATA,
        weights=weights,
    output: f"{BUILD}/{{preset}}/unsteered.txt"
    params:
        kept=KEPT,
        python=f"{quote(sys.executable)} -m",
        given=given,
    log: f"{BUILD}/{{preset}}/unsteered.log"
    threads: 16
    resources:
        gpu=1,
    shell:
        """
        export OMP_NUM_THREADS={threads}
        export STEERPAPER_KEPT={params.kept:q}
        {params.python} steerpaper.behaviour {params.given} > {output:q} 2> {log:q}
        """


for name, ended in [*((name, "") for name in NOTEBOOKS), (FIRST, ".ended")]:

    rule:
        name: f"notebook_{name}{ended.replace('.', '_')}"
        message: f"{name} on {{wildcards.preset}}; log {{log}}, cells so far {{params.partial}}"
        input:
            notebook=f"notebooks/{name}.py",
            after=[f"{BUILD}/{{preset}}/{earlier}.ipynb" for earlier in NOTEBOOKS[name]["after"]],
            package=PACKAGE,
            data=DATA + NOTEBOOKS[name].get("reads", []),
            weights=weights,
        output:
            written=[] if ended else due(name),
            executed=f"{BUILD}/{{preset}}/{name}{ended}.ipynb",
        params:
            # Of an earlier run, if this one ends without; the workflow removes what is due itself.
            left=[path for path in written(name) if path not in due(name)],
            source=f"{BUILD}/{{preset}}/{name}.source.ipynb",
            partial=f"{BUILD}/{{preset}}/{name}.partial.ipynb",
            kept=KEPT,
            # Held by all processes of the job, as by one that a kill has orphaned or that is still on a cluster.
            lock=f"{BUILD}/{{preset}}/.{name}.lock",
            hold=f"{quote(sys.executable)} {quote(workflow.basedir + '/profiles/workflow.py')} hold",
            python=f"{quote(sys.executable)} -m",
            given=given,
        log:
            f"{BUILD}/{{preset}}/{name[:2]}.log",
        # What most others wait for goes first, so that no core is idle at the end.
        priority: sum(name in other["after"] for other in NOTEBOOKS.values())
        # One thread for the shipped models: two notebooks side by side are faster than one on two threads, and sums
        # do not depend on how many presets were asked for. Others get a GPU, or else as many threads as there are.
        threads: lambda wildcards: 1 if is_shipped(wildcards) else 16
        resources:
            gpu=lambda wildcards: 0 if is_shipped(wildcards) else 1,
        shell:
            """
            exec > {log:q} 2>&1 9>> {params.lock:q}
            {params.hold} {params.lock:q} 9
            export OMP_NUM_THREADS={threads}
            export STEERPAPER_KEPT={params.kept:q}
            rm -f {params.left:q}
            {params.python} jupytext --quiet --to ipynb --output {params.source:q} {input.notebook}
            {params.python} papermill -k python3 -r preset {params.given} {params.source:q} {params.partial:q}
            mv {params.partial:q} {output.executed:q}
            """
