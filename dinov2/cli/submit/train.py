"""`dinov2 submit train`: one training over many machines, or a sweep of trainings.

In: words. Out: a submitted job, an array of them, or with --dry-run the script that sbatch would be given.
"""

import argparse
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

from dinov2.cli import INTERRUPTED
from dinov2.cli.console import stderr, stdout
from dinov2.cli.submit.options import add_cluster_options, count, listed, refuse_here, wait_with_bar

if TYPE_CHECKING:
    from dinov2.cli.submit.plan import Plan
    from dinov2.launch import Array, Held, Resources

NAME = "dinov2-train"
SLURM_ALONE = ("partition", "account", "qos", "mem", "parallel", "slurm", "srun", "cpus_per_task", "cpus_per_gpu")
WARNING_SECONDS = 180  # between the signal and the end of the time: a step, and a checkpoint of a large model
EXAMPLES = """examples:
  dinov2 submit train --nodes 16 --gpus-per-node 4 --partition gpu -- --config-file vitb14_cxr --output-dir runs/b14
  dinov2 submit train --gpus-per-node a100:8 --account radiology --slurm constraint=ib exclusive --follow -- \\
      --config-file vitb14_cxr --output-dir runs/b14 train.batch_size_per_gpu=40
  dinov2 submit train --gpus-per-node 4 --parallel 2 --sweep optim.base_lr=1e-4,2e-4 crops.global_crops_size=224,518 \\
      -- --config-file vitb14_cxr --output-dir sweeps/first
  dinov2 submit train --cluster local --processes-per-node 2 --follow -- --config-file cpu_smoke --output-dir runs/first

After `--` come the words of `dinov2 train`. Everything that can be is checked before anything is submitted. A job
that runs out of time or is preempted saves, goes back into the queue and continues. The same command again continues
what is missing. `dinov2 runs DIR` shows how far it is."""


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds what can be submitted."""
    parser = kinds.add_parser(
        "train",
        help="one training over many machines, or a sweep",
        description="Train on a SLURM cluster: one process per GPU, on as many machines as you say.",
        usage="dinov2 submit train --gpus-per-node G [--nodes N] [options] -- --config-file F --output-dir RUN ...",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=count, default=1, metavar="N", help="machines of a run (default: 1)")
    parser.add_argument("--gpus-per-node", metavar="G", help="GPUs of each, a process for each: 4, or a100:4")
    parser.add_argument(
        "--processes-per-node", type=count, metavar="P", help="without GPUs, or where --slurm gres=... asks for them"
    )
    add_cluster_options(parser, default_time="the cluster's")
    cpus = parser.add_mutually_exclusive_group()
    words = "cores of each process (default: train.num_workers + 1)"
    cpus.add_argument("--cpus-per-gpu", type=count, metavar="C", help=words)
    cpus.add_argument("--cpus-per-task", type=count, metavar="C", help="the same")
    parser.add_argument("--mem", metavar="M", help="memory of a machine, as in sbatch (default: the cluster's)")
    parser.add_argument("--srun", nargs="+", action="extend", metavar="KEY=VALUE", help="options of srun, as --slurm")
    parser.add_argument(
        "--setup", action="append", metavar="LINE", help="a line of shell before the training, e.g. 'module load cuda'"
    )
    parser.add_argument(
        "--warn-seconds",
        type=count,
        default=WARNING_SECONDS,
        metavar="S",
        help="time to save before --time is over (default: %(default)s)",
    )
    parser.add_argument("--sweep", nargs="+", metavar="A.B=X,Y", help="a run for every combination of these values")
    parser.add_argument("--name", default=NAME, help="of the job (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="check, show script and commands, submit nothing")
    parser.add_argument("--follow", action="store_true", help="show the log of the main process until the job ends")
    parser.add_argument("--wait", action="store_true", help="wait until everything has ended")
    parser.add_argument("words", nargs="*", metavar="WORDS", help="the words of `dinov2 train`, after `--`")
    parser.set_defaults(run=submit_train)


def submit_train(arguments: argparse.Namespace) -> int:
    """Checks everything that could fail on the cluster, then submits; with --wait or --follow to the end."""
    from dinov2.cli import build_parser
    from dinov2.cli.submit.plan import make_plan
    from dinov2.errors import ConfigError
    from dinov2.launch import Variant, product_of

    training = build_parser("train").parse_args(["train", *arguments.words])
    if arguments.sweep and arguments.follow:
        raise ConfigError("--follow shows the log of one run; for a sweep give --wait, and look with `dinov2 runs`.")
    variants = product_of(arguments.sweep) if arguments.sweep else [Variant(".", ())]
    resources = _resources(arguments, num_variants=len(variants))
    plan = make_plan(training, variants, num_processes=resources.num_processes)
    resources = _with_cores(resources, arguments, plan=plan)
    _check_loggers(plan)
    for message in dict.fromkeys(message for run in plan.to_start for message in run.loaded.messages):
        stderr.print(message, style="yellow", markup=False)
    stdout.print(_in_words(resources, plan=plan, cluster=arguments.cluster), markup=False)
    if arguments.dry_run:
        _show_plan(arguments, resources, plan=plan)
        return 0
    if not plan.to_start:
        stdout.print(f"nothing was submitted.\nruns      dinov2 runs {shlex.quote(str(plan.output))}", markup=False)
        return 0
    array = _submit(arguments, resources, plan=plan)
    _show(array, plan=plan)
    if arguments.follow:
        return _follow(array)
    return _wait(array, plan=plan) if arguments.wait else 0


def _check_loggers(plan: "Plan") -> None:
    """Their packages, before a job waits in a queue for nothing: it will have the environment of this command."""
    configs = [run.loaded.config for run in plan.to_start if run.loaded.config.logging.loggers]
    if configs:
        from dinov2.train.loggers import check_installed

        for config in configs:
            check_installed(config)


def _resources(arguments: argparse.Namespace, *, num_variants: int) -> "Resources":
    """What each run is given; the cores follow once the settings are known."""
    from dinov2.errors import ConfigError
    from dinov2.launch import Resources, count_gpus, minutes, sbatch_word

    refuse_here(arguments, SLURM_ALONE)
    if arguments.cluster == "local" and arguments.nodes > 1:
        raise ConfigError("--cluster local is this one machine; leave --nodes out.")
    gpus = count_gpus(arguments.gpus_per_node) if arguments.gpus_per_node else None
    processes = arguments.processes_per_node or gpus
    if processes is None:
        raise ConfigError("give --gpus-per-node G (a process for each GPU), or --processes-per-node P without GPUs.")
    if gpus is not None and gpus != processes:
        raise ConfigError(
            f"--processes-per-node {processes}: there is a process for each of {gpus} GPUs; leave it out."
        )
    if arguments.cluster == "local" and gpus and num_variants > 1:
        raise ConfigError("--cluster local starts all runs at once, on the same GPUs: submit one run, or use SLURM.")
    return Resources(
        num_nodes=arguments.nodes,
        processes_per_node=processes,
        gpus_per_node=arguments.gpus_per_node,
        memory=arguments.mem,
        minutes=minutes(arguments.time) if arguments.time else None,
        warning_seconds=arguments.warn_seconds,
        partition=arguments.partition,
        account=arguments.account,
        qos=arguments.qos,
        max_parallel=arguments.parallel,
        setup=tuple(arguments.setup or ()),
        srun=tuple(f"--{text.strip().removeprefix('--')}" for text in arguments.srun or ()),
        further=dict(sbatch_word(text) for text in arguments.slurm or ()),
    )


def _with_cores(resources: "Resources", arguments: argparse.Namespace, *, plan: "Plan") -> "Resources":
    """A core for each data worker and one for the training, where nothing else was said."""
    from dataclasses import replace

    needed = max(run.loaded.config.train.num_workers for run in plan.runs) + 1
    return replace(resources, num_cpus=arguments.cpus_per_gpu or arguments.cpus_per_task or needed)


def _in_words(resources: "Resources", *, plan: "Plan", cluster: str) -> str:
    machines = "this machine" if cluster == "local" else f"{resources.num_nodes} node(s)"
    each = f"{resources.processes_per_node} process(es)"
    cores = "" if cluster == "local" else f", {resources.num_cpus} core(s) for each"
    lines = [f"training  {machines} x {each}{cores}"]
    if plan.is_sweep:
        finished = len(plan.runs) - len(plan.to_start)
        lines.append(f"runs      {len(plan.runs)} in {plan.output}, {finished} finished, {len(plan.to_start)} to do")
    elif not plan.to_start:
        lines.append(f"run       {plan.output} is finished")
    if plan.starts_anew:
        lines.append("anew      --no-resume: what earlier runs left is set aside once, now; the job itself continues")
    return "\n".join(lines)


def _show_plan(arguments: argparse.Namespace, resources: "Resources", *, plan: "Plan") -> None:
    from dinov2.launch import jobs_folder, script_of

    if arguments.cluster == "slurm" and plan.to_start:
        text = script_of(
            folder=jobs_folder(plan.output),
            resources=resources,
            name=arguments.name,
            num_tasks=len(plan.to_start),
            trains=True,
        )
        stdout.print(f"script\n{text.rstrip()}\n", markup=False)
    for number, run in enumerate(plan.to_start, start=1):
        stdout.print(f"task {number}    dinov2 {shlex.join(run.words)}", markup=False)
    stdout.print("next: the same without --dry-run; nothing was submitted", markup=False)


def _submit(arguments: argparse.Namespace, resources: "Resources", *, plan: "Plan") -> "Array":
    from dinov2.cli import main
    from dinov2.launch import check_cluster, jobs_folder, submit_array, write_sweep

    jobs = jobs_folder(plan.output)
    check_cluster(arguments.cluster, folder=jobs)
    if plan.starts_anew:
        _set_aside(plan)
    jobs.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(plan.config_file, plan.frozen)
    if plan.is_sweep:
        write_sweep(plan.output, [run.variant for run in plan.runs])
    return submit_array(
        main,
        [run.words for run in plan.to_start],
        folder=jobs,
        cluster=arguments.cluster,
        resources=resources,
        name=arguments.name,
        trains=True,
        notes={"runs": [run.variant.name for run in plan.to_start]},
    )


def _set_aside(plan: "Plan") -> None:
    """Once, here: a job that is put back must continue, not start anew again."""
    from dinov2.train.run_folder import open_run_folder

    for run in plan.to_start:
        if run.path.is_dir():
            with open_run_folder(run.path, is_main=True) as folder:
                if aside := folder.set_aside():
                    stdout.print(f"aside     {aside}", markup=False)


def _show(array: "Array", *, plan: "Plan") -> None:
    output = shlex.quote(str(plan.output))
    if array.cluster == "slurm":
        lines = [f"job       {array.job_id}", f"watch     squeue --jobs {array.job_id}"]
        if plan.is_sweep:
            lines += [f"logs      {array.folder}", f"stop      scancel {array.job_id}"]
        else:
            lines += [f"follow    tail -F {array.log_of(1)}", _how_to_stop(array)]
    else:
        processes = ", ".join(str(job.job_id) for job in array.jobs)
        lines = [f"processes {processes}", f"logs      {array.folder}", f"stop      kill {processes.replace(',', '')}"]
    lines += [f"runs      dinov2 runs {output}", "Stopped or failed? The same command again continues what is missing."]
    stdout.print("\n".join(lines), markup=False)


def _how_to_stop(array: "Array") -> str:
    """With a signal alone SLURM sets no deadline; plain `scancel` kills after the cluster's KillWait."""
    if array.cluster == "local":
        return f"stop      kill {array.job_id}    saves first"
    return f"stop      scancel --signal=TERM {array.job_id}    saves first, however long that takes"


def _follow(array: "Array") -> int:
    from dinov2.errors import LaunchError
    from dinov2.launch import Held, follow

    begun, last = "", Held("")
    try:
        for seen in follow(array):
            if isinstance(seen, str):
                sys.stdout.write(seen)
                sys.stdout.flush()
                continue
            if text := _news(array, now=seen, before=last, begun=begun):
                stderr.print(text, style="dim", markup=False)
            begun, last = seen.begun or begun, seen
    except KeyboardInterrupt:
        stderr.print(f"no longer following; the job goes on.\n{_how_to_stop(array)}", markup=False)
        return INTERRUPTED
    if last.state == "FAILED":
        raise LaunchError(
            f"job {array.job_id} failed or was stopped; its log: {array.log_of(1)}\n"
            "Mend what it names, then run the same command again: it continues from the last checkpoint."
        )
    return 0


def _news(array: "Array", *, now: "Held", before: "Held", begun: str) -> str:
    """What changed, in words; `begun` is when the job last started to run. A short wait may go by unseen."""
    job, back = f"job {array.job_id}", "was put back into the queue"
    if now.state == "PENDING":
        return f"{job} {back if begun and before.state != 'PENDING' else 'waits'} ({now.reason})"
    if now.state == "RUNNING" and now.begun != begun:
        again = f"{back} and " if begun and before.state != "PENDING" else ""
        return f"{job} {again}runs{', from its last checkpoint' if begun else ''}"
    return f"{job} has ended" if now.state == "DONE" else ""


def _wait(array: "Array", *, plan: "Plan") -> int:
    from dinov2.cli import main
    from dinov2.errors import LaunchError

    try:
        failed = wait_with_bar(array)
    except KeyboardInterrupt:
        stderr.print("no longer waiting; what was submitted goes on.")
        return INTERRUPTED
    main(["runs", str(plan.output)])
    if failed:
        runs = plan.to_start
        logs = listed(failed, words_of=lambda number: f"{runs[number - 1].path}: {array.log_of(number)}")
        raise LaunchError(
            f"{len(failed)} of {len(array.jobs)} runs failed or were stopped; their logs:\n{logs}\n"
            "Mend what they name, then run the same command again: it continues what is missing."
        )
    return 0
