"""TensorBoard, Weights & Biases and MLflow beside a training: what it says and measures, carried to whoever watches.

In: the `logging` section, a `Run`, the events of a training. Out: the same events, and what they say in the loggers
that the section names. A logger that fails neither stops the training nor holds it up.
"""

from dinov2.train.loggers.loggers import Loggers, check_installed

__all__ = ["Loggers", "check_installed"]
