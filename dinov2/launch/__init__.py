"""Many tasks at once, and many processes: jobs on a SLURM cluster, or on this machine; the only home of submitit.

In: a function of the command line, its words for every task, and what a task may use. Out: an `Array` that was
submitted, and how far its tasks are; a sweep's runs; what became of the runs of a folder; a job put back into the
queue. What the words mean is not known here.
"""

from dinov2.launch.array import Array, Cluster, check_cluster, script_of, submit_array
from dinov2.launch.queue import Held
from dinov2.launch.records import jobs_folder
from dinov2.launch.requeue import is_preempted, job_in_slurm, puts_back, requeue
from dinov2.launch.resources import Resources, count_gpus, minutes, sbatch_word
from dinov2.launch.runs import RunReport, is_running, newest_step, read_runs
from dinov2.launch.sweep import Variant, product_of, write_sweep
from dinov2.launch.watch import Progress, follow, watch

__all__ = [
    "Array",
    "Cluster",
    "Held",
    "Progress",
    "Resources",
    "RunReport",
    "Variant",
    "check_cluster",
    "count_gpus",
    "follow",
    "is_preempted",
    "is_running",
    "job_in_slurm",
    "jobs_folder",
    "minutes",
    "newest_step",
    "product_of",
    "puts_back",
    "read_runs",
    "requeue",
    "sbatch_word",
    "script_of",
    "submit_array",
    "watch",
    "write_sweep",
]
