"""A decoder on patch tokens says what each pixel is.

In: `EvalData` with masks and a `Backbone` with patch tokens. Out: an `Outcome` of `Segmentations`, and the decoder.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dinov2.errors import ConfigError
from dinov2.eval.examples import EvalData, Examples
from dinov2.eval.outcome import Outcome
from dinov2.eval.probes.finetune_groups import has_order
from dinov2.eval.probes.finetune_steps import Progress
from dinov2.eval.probes.segment_probe import Segmenter, SegmentProbe, SegmentSettings
from dinov2.eval.probes.segment_tokens import Keep, TokenReader, TokenSplit, keep_where
from dinov2.eval.protocol import select_refit_test
from dinov2.eval.scores import mean_dice

WHERE = {
    "ram": "computed once, kept in memory",
    "disk": "computed once, kept in a file",
    "none": "computed from the pictures in every epoch",
}


def segment(
    data: EvalData,
    reader: TokenReader,
    *,
    settings: SegmentSettings,
    lrs: Sequence[float],
    backbone_lrs: Sequence[float],
    keep: Keep,
    keep_limit_gb: float,
    folder: Path,
    dataset: str,
    groups: Sequence[str] = (),
    refit: bool = True,
    progress: Progress | None = None,
) -> tuple[Outcome, SegmentProbe, Segmenter]:
    """Chooses learning rates by mean Dice on validation, fits on train + validation, predicts test once.

    `keep` says where the tokens of train and validation are kept; "disk" is a file for each in `folder`, removed at the
    end. Tokens that change from epoch to epoch (a tuned backbone, augmented pictures) are not kept.

    Raises:
        ConfigError: no masks, no patch tokens, tokens to keep that change, or a mode the backbone is not made for.
    """
    if data.train.task != "segmentation":
        raise ConfigError("segment needs masks: give --masks COLUMN, or a dataset that has them (MC, Shenzhen, SIIM).")
    reader.check()
    changing = settings.tune != "none" or settings.augmentation is not None
    if changing and keep in ("ram", "disk"):
        raise ConfigError(
            f"--tokens {keep}: tokens of a tuned backbone or of augmented pictures change from epoch to epoch, and "
            "cannot be kept. Leave --tokens out, or --tune and --augment."
        )
    num_train = len(data.train) + (0 if data.val is None else len(data.val))
    where = "none" if changing else keep_where(keep, num_bytes=reader.num_bytes(num_train), limit_gb=keep_limit_gb)
    probe = _probe(reader, settings=settings, data=data, groups=groups, progress=progress)
    rates: list[dict[str, float]] = [{"lr": lr} for lr in lrs]
    if settings.tune != "none":
        rates = [{**one, "backbone_lr": rate} for one in rates for rate in backbone_lrs]
    files = {name: folder / f".tokens-{name}.npy" for name in ("train", "val")} if where == "disk" else {}

    def split_of(name: str, examples: Examples) -> TokenSplit:
        if where == "none" or name == "test":
            return TokenSplit(examples=examples, distances=name == "test" or len(rates) == 1)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(f"tokens of {name}", done, len(examples), "")

        return reader.kept(examples, file=files.get(name), distances=len(rates) == 1, advance=advance)

    try:
        splits = {name: split_of(name, examples) for name, examples in data.splits()}
        verdict = select_refit_test(
            probe,
            candidates=rates,
            train=splits["train"],
            val=splits.get("val"),
            test=splits.get("test"),
            join=TokenSplit.joined,
            score=mean_dice,
            refit=refit,
        )
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)
    outcome = Outcome(
        probe="segment",
        backbone=reader.backbone.traits.name,
        dataset=dataset,
        settings=_said(settings, reader=reader, where=where, num_candidates=len(rates)),
        metric="mean_dice",
        chosen=verdict.chosen,
        trail=verdict.trail,
        fitted_on=verdict.fitted_on,
        counts={name: len(examples) for name, examples in data.splits()},
        val=verdict.val,
        test=verdict.test,
    )
    return outcome, probe, verdict.final


def _probe(
    reader: TokenReader, *, settings: SegmentSettings, data: EvalData, groups: Sequence[str], progress: Progress | None
) -> SegmentProbe:
    try:
        return SegmentProbe(
            reader, settings=settings, num_classes=len(data.train.classes) + 1, groups=groups, progress=progress
        )
    except ValueError as error:
        raise ConfigError(f"--tune {settings.tune}: {error}") from error


def _said(settings: SegmentSettings, *, reader: TokenReader, where: str, num_candidates: int) -> dict[str, Any]:
    said = asdict(settings)
    if settings.decoder == "linear":
        del said["width"]
    if settings.tune != "lora":
        del said["rank"], said["alpha"]
    if settings.tune == "none":
        del said["layer_decay"]
    elif settings.layer_decay != 1 and not has_order(reader.backbone):
        said["layer_decay"] = "none: this network has no order of layers"
    said["compare_at"] = "the mask's own size" if settings.compare_at is None else settings.compare_at
    if num_candidates > 1:
        said["surface distances"] = "of test; validation only chose"
    return said | {
        "blocks": list(reader.blocks),
        "size": reader.preparation.size,
        "fit": reader.preparation.fit,
        "batch_size": reader.batch_size,
        "precision": reader.precision,
        "tokens": WHERE[where],
    }
