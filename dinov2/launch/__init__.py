"""Many tasks at once: a job array on a SLURM cluster, or processes on this machine; the only home of submitit.

In: a function of the command line, its words for every task, and what a task may use. Out: an `Array` that was
submitted, and how far its tasks are. What the words mean is not known here.
"""

from dinov2.launch.array import Array, Cluster, check_cluster, submit_array
from dinov2.launch.resources import Resources, minutes, sbatch_word
from dinov2.launch.watch import Progress, watch

__all__ = [
    "Array",
    "Cluster",
    "Progress",
    "Resources",
    "check_cluster",
    "minutes",
    "sbatch_word",
    "submit_array",
    "watch",
]
