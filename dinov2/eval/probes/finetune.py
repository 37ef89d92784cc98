"""Fine-tuning by the protocol: learning rates chosen on validation, fitted again, tested once.

In: `EvalData` and a `Backbone`. Out: an `Outcome`, the probe with what it noted of every epoch, and what was learnt.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from dinov2.distributed import World
from dinov2.errors import ConfigError
from dinov2.eval.backbones import Backbone
from dinov2.eval.examples import EvalData
from dinov2.eval.features import join_examples
from dinov2.eval.outcome import Outcome, Predictions
from dinov2.eval.pictures import Preparation
from dinov2.eval.probes.adapters import count_parameters
from dinov2.eval.probes.finetune_groups import NO_ORDER, has_order
from dinov2.eval.probes.finetune_probe import FinetuneProbe, FinetuneSettings, Tuned
from dinov2.eval.probes.finetune_steps import Progress
from dinov2.eval.probes.judging import About, metric_of, outcome_of, refuse_diverged
from dinov2.eval.protocol import select_refit_test


def finetune(
    data: EvalData,
    backbone: Backbone,
    *,
    settings: FinetuneSettings,
    backbone_lrs: Sequence[float],
    head_lrs: Sequence[float],
    preparation: Preparation,
    metric: str,
    dataset: str,
    world: World,
    groups: Sequence[str] = (),
    refit: bool = True,
    progress: Progress | None = None,
) -> tuple[Outcome, FinetuneProbe, Tuned]:
    """Chooses the learning rates on validation, fits on train + validation from the first weights, predicts test once.

    Source: the settings searched are those the authors of the public evaluation state (backbone 1e-5, 1e-6, 1e-7);
    layer-wise decay and the head's input as in `finetune_groups` and the linear probe.

    Raises:
        ConfigError: masks instead of labels, volumes, or a mode that the backbone has no parameters for.
    """
    _check(data)
    measure = metric_of(metric)

    def score(said: Predictions) -> float:
        return measure(said) if np.isfinite(said.scores).all() else float("nan")  # diverged: never chosen

    try:
        probe = FinetuneProbe(
            backbone,
            settings=settings,
            preparation=preparation,
            world=world,
            score=score,
            watched=data.val,
            groups=groups,
            progress=progress,
        )
    except ValueError as error:
        raise ConfigError(f"--mode {settings.mode}: {error}") from error
    rates = [0.0] if settings.mode == "frozen" else backbone_lrs
    verdict = select_refit_test(
        probe,
        candidates=[{"backbone_lr": rate, "head_lr": head} for rate in rates for head in head_lrs],
        train=data.train,
        val=data.val,
        test=data.test,
        join=join_examples,
        score=score,
        refit=refit,
    )
    refuse_diverged(verdict)
    about = About(probe="finetune", backbone=backbone.traits.name, settings=_said(probe), metric=metric)
    counts = {name: len(examples) for name, examples in data.splits()}
    return outcome_of(verdict, about=about, dataset=dataset, counts=counts), probe, verdict.final


def _check(data: EvalData) -> None:
    """Raises ConfigError for data that has no label per picture."""
    if data.train.task == "segmentation":
        raise ConfigError("finetune classifies pictures, and the data has masks. Take dinov2 eval segment --tune full.")
    if data.train.volumes is not None:
        raise ConfigError("finetune takes pictures, not volumes. Take knn, logreg or linear: they average the slices.")


def _said(probe: FinetuneProbe) -> dict[str, Any]:
    """The settings, and how much learnt by them."""
    learning, whole = count_parameters(probe.backbone)
    said = {
        **asdict(probe.settings),
        "size": probe.preparation.size,
        "fit": probe.preparation.fit,
        "parameters of the backbone": whole,
        "of the backbone or added, that learn": learning,
    }
    if probe.settings.layer_decay != 1 and not has_order(probe.backbone):
        said["layer_decay"] = NO_ORDER
    return said | {"uncertain labels of val and test": "not counted"}
