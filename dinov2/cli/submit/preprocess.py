"""`dinov2 submit preprocess`: an archive in equal shares, each a task of one job array.

In: words. Out: a submitted array, and with --wait its merged manifest.
"""

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2.cli import INTERRUPTED
from dinov2.cli.console import stderr, stdout
from dinov2.cli.ending import Ending
from dinov2.cli.submit.options import add_cluster_options, count, listed, refuse_here, wait_with_bar

if TYPE_CHECKING:
    from dinov2.config.preprocess import PreprocessConfig
    from dinov2.launch import Array, Resources

SLURM_ALONE = ("partition", "account", "qos", "mem", "parallel", "slurm")  # of no meaning to processes of this machine
EXAMPLES = """examples:
  dinov2 submit preprocess --tasks 64 --partition cpu -- --input archive --output pictures --dataset OURS
  dinov2 submit preprocess --tasks 200 --parallel 50 --cpus-per-task 8 --mem 16G --time 2-0 --account radiology \\
      --slurm constraint=ib --wait -- --input archive --output pictures --config-file percentile
  dinov2 submit preprocess --tasks 2 --cluster local --wait -- --input archive --output pictures

After `--` come the words of `dinov2 preprocess`. Every task converts its share of the files into
PICTURES/shares/; `dinov2 manifest merge` makes one manifest of them, and --wait calls it. The same command again
continues what is missing."""


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds what can be submitted."""
    parser = kinds.add_parser(
        "preprocess",
        help="convert an archive in equal shares",
        description="Convert an archive in equal shares, each a task of one SLURM job array.",
        usage="dinov2 submit preprocess --tasks N [options] -- --input DIR --output PICTURES ...",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tasks", type=count, required=True, metavar="N", help="shares; the same N until it is done")
    add_cluster_options(parser, default_time="24:00:00")
    parser.add_argument(
        "--cpus-per-task", type=count, metavar="C", help="processes of a task (default: 4; local: the cores, shared)"
    )
    parser.add_argument("--mem", metavar="M", help="memory of a task, as in sbatch (default: 8G)")
    parser.add_argument("--log-dir", type=Path, metavar="DIR", help="(default: PICTURES.private/jobs)")
    parser.add_argument("--dry-run", action="store_true", help="check and show everything, submit nothing")
    parser.add_argument("--wait", action="store_true", help="wait for the tasks, then merge")
    parser.add_argument("words", nargs="*", metavar="WORDS", help="the words of the command, after `--`")
    parser.set_defaults(run=submit_preprocess)


def submit_preprocess(arguments: argparse.Namespace) -> int:
    """Checks everything that could fail N times over on the cluster, then submits; with --wait to the end."""
    from dinov2.cli import build_parser, main
    from dinov2.launch import check_cluster, submit_array
    from dinov2.preprocess.work.identity import read_or_create
    from dinov2.preprocess.work.places import find_places, private_folder

    conversion = build_parser("preprocess").parse_args(["preprocess", *arguments.words])
    config = _check_words(conversion)
    resources = _resources(arguments)
    num_tasks = arguments.tasks
    output = conversion.output
    places = find_places(output, private=conversion.private, key_file=conversion.key_file, share=(1, num_tasks))
    given = ["--workers", str(resources.num_cpus), *arguments.words]
    words = [["preprocess", "--share", f"{number}/{num_tasks}", *given] for number in range(1, num_tasks + 1)]
    ending = Ending(output, places.key, config)
    jobs = arguments.log_dir or private_folder(output, private=conversion.private) / "jobs"
    stdout.print(_in_words(resources, num_tasks=num_tasks, cluster=arguments.cluster), markup=False)
    if arguments.dry_run:
        stdout.print(f"task 1    dinov2 {shlex.join(words[0])}\nlogs      {jobs}/", markup=False)
        stdout.print("next: the same without --dry-run; nothing was submitted", markup=False)
        return 0
    check_cluster(arguments.cluster, folder=jobs)
    places.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    read_or_create(places.key, create=conversion.key_file is None)  # once, not by every task
    array = submit_array(
        main, words, folder=jobs, cluster=arguments.cluster, resources=resources, name="dinov2-preprocess"
    )
    _show(array, ending=ending)
    return _wait(array, ending=ending) if arguments.wait else 0


def _check_words(conversion: argparse.Namespace) -> "PreprocessConfig":
    """The settings of the conversion, where its words go together with a submission."""
    from dinov2.config.load import load_typed
    from dinov2.config.preprocess import PreprocessConfig
    from dinov2.config.presets import find_config
    from dinov2.errors import ConfigError, LaunchError
    from dinov2.preprocess.work.settings import check

    if conversion.share is not None:
        raise ConfigError("--share is given by each task itself; say with --tasks how many shares there are.")
    if conversion.workers is not None:
        raise ConfigError("--workers of a task are its --cpus-per-task; give that before the `--` instead.")
    if not conversion.input.exists():
        raise LaunchError("the --input does not exist here. A cluster needs a path that all its machines know.")
    preset = find_config(conversion.config_file, kind="preprocess")
    return check(load_typed(PreprocessConfig, file=preset, overrides=conversion.overrides))


def _resources(arguments: argparse.Namespace) -> "Resources":
    """What each task is given; what processes of this machine cannot be given is refused."""
    from dinov2.launch import Resources, minutes, sbatch_word

    refuse_here(arguments, SLURM_ALONE)
    if arguments.cluster == "local" and not arguments.cpus_per_task:
        num_cpus = max(1, (os.cpu_count() or 1) // arguments.tasks)
    else:
        num_cpus = arguments.cpus_per_task or Resources.num_cpus
    return Resources(
        num_cpus=num_cpus,
        memory=arguments.mem or Resources.memory,
        minutes=minutes(arguments.time) if arguments.time else Resources.minutes,
        partition=arguments.partition,
        account=arguments.account,
        qos=arguments.qos,
        max_parallel=arguments.parallel,
        further=dict(sbatch_word(text) for text in arguments.slurm or ()),
    )


def _in_words(resources: "Resources", *, num_tasks: int, cluster: str) -> str:
    each = f"{resources.num_cpus} processes" if resources.num_cpus > 1 else "1 process"
    hours = f"{(resources.minutes or 0) / 60:g} h"
    if cluster == "local":
        return f"tasks     {num_tasks} at once on this machine, each {each}, {hours} at most"
    at_once = f", {resources.max_parallel} at a time" if resources.max_parallel else ""
    return f"tasks     {num_tasks}{at_once}, each {each}, {resources.memory} of memory, {hours} at most, then requeued"


def _show(array: "Array", *, ending: Ending) -> None:
    if array.cluster == "slurm":
        lines = [
            f"job       {array.job_id}",
            f"watch     squeue --jobs {array.job_id}",
            f"stop      scancel {array.job_id}",
        ]
    else:
        lines = [f"processes {', '.join(str(job.job_id) for job in array.jobs)}"]
    lines += [
        f"logs      {array.folder}",
        f"at last   {ending.line()}",
        "A task failed or was stopped? The same command again: what is finished is not done twice.",
    ]
    stdout.print("\n".join(lines), markup=False)


def _wait(array: "Array", *, ending: Ending) -> int:
    from dinov2.errors import LaunchError

    try:
        failed = wait_with_bar(array)
    except KeyboardInterrupt:
        array.stop_here()
        goes_on = "the job goes on" if array.cluster == "slurm" else "its processes are ending"
        stderr.print(f"no longer waiting; {goes_on}. The same command later continues what is missing.")
        return INTERRUPTED
    if failed:
        logs = listed(failed, words_of=lambda number: f"task {number}: {array.log_of(number)}")
        raise LaunchError(
            f"{len(failed)} of {len(array.jobs)} tasks failed or were stopped; their messages:\n{logs}\n"
            "Mend what they name, then run the same command again: what is finished is not done twice."
        )
    return ending.merge()
