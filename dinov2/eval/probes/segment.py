"""A decoder on patch tokens says what each pixel is.

In: `EvalData` with masks and a `Backbone` with patch tokens. Out: an `Outcome` of `Segmentations`, and the decoder.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dinov2.errors import ConfigError
from dinov2.eval.examples import EvalData, Examples
from dinov2.eval.making import making, remove_leftovers
from dinov2.eval.outcome import Outcome
from dinov2.eval.probes.finetune_groups import NO_ORDER, has_order
from dinov2.eval.probes.finetune_steps import Progress
from dinov2.eval.probes.judging import About, outcome_of
from dinov2.eval.probes.segment_probe import Segmenter, SegmentProbe, SegmentSettings
from dinov2.eval.probes.segment_tokens import Keep, TokenReader, TokenSplit, Where, keep_where
from dinov2.eval.protocol import select_refit_test
from dinov2.eval.scores import mean_dice

WHERE: dict[Where, str] = {
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

    `keep` says where the tokens of train and validation are kept; "disk" is a file for each below `folder`, removed at
    the end. Tokens that change from epoch to epoch (a tuned backbone, augmented pictures) are not kept.

    Raises:
        ConfigError: no masks, no patch tokens, tokens to keep that change, or a mode the backbone is not made for.
    """
    if data.train.task != "segmentation":
        raise ConfigError("segment needs masks: give --masks COLUMN, or a dataset that has them (MC, Shenzhen, SIIM).")
    reader.check()
    where = _where(data, reader, settings=settings, keep=keep, limit_gb=keep_limit_gb)
    probe = _probe(reader, settings=settings, data=data, groups=groups, progress=progress)
    rates: list[dict[str, float]] = [{"lr": lr} for lr in lrs]
    if settings.tune != "none":
        rates = [{**one, "backbone_lr": rate} for one in rates for rate in backbone_lrs]
    choosing = len(rates) > 1
    with _token_splits(data, reader, where=where, folder=folder, distances=not choosing, progress=progress) as splits:
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
    said = _said(settings, reader=reader, where=where, choosing=choosing)
    about = About(probe="segment", backbone=reader.backbone.traits.name, settings=said, metric="mean_dice")
    counts = {name: len(examples) for name, examples in data.splits()}
    return outcome_of(verdict, about=about, dataset=dataset, counts=counts), probe, verdict.final


def _where(data: EvalData, reader: TokenReader, *, settings: SegmentSettings, keep: Keep, limit_gb: float) -> Where:
    """Where tokens are kept.  Raises ConfigError where they are to be kept and change."""
    if settings.tune == "none" and settings.augmentation is None:
        num_pictures = len(data.train) + (0 if data.val is None else len(data.val))
        return keep_where(keep, num_bytes=reader.num_bytes(num_pictures), limit_gb=limit_gb)
    if keep in ("ram", "disk"):
        raise ConfigError(
            f"--tokens {keep}: tokens of a tuned backbone or of augmented pictures change from epoch to epoch, and "
            "cannot be kept. Leave --tokens out, or --tune and --augment."
        )
    return "none"


@contextmanager
def _token_splits(
    data: EvalData, reader: TokenReader, *, where: Where, folder: Path, distances: bool, progress: Progress | None
) -> Iterator[dict[str, TokenSplit]]:
    """The splits, train and validation with their tokens where these are kept; files of them are gone at the end.

    `distances` asks for those of train and validation too; of test they are always computed.
    """
    remove_leftovers(folder)

    def split_of(name: str, examples: Examples, *, files: Path | None) -> TokenSplit:
        if where == "none" or name == "test":
            return TokenSplit(examples=examples, distances=distances or name == "test")
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(f"tokens of {name}", done, len(examples), "")

        return reader.kept(
            examples, file=None if files is None else files / f"{name}.npy", distances=distances, advance=advance
        )

    with making(folder, name="tokens") if where == "disk" else nullcontext() as files:
        yield {name: split_of(name, examples, files=files) for name, examples in data.splits()}


def _probe(
    reader: TokenReader, *, settings: SegmentSettings, data: EvalData, groups: Sequence[str], progress: Progress | None
) -> SegmentProbe:
    try:
        return SegmentProbe(
            reader, settings=settings, num_classes=len(data.train.classes) + 1, groups=groups, progress=progress
        )
    except ValueError as error:
        raise ConfigError(f"--tune {settings.tune}: {error}") from error


def _said(settings: SegmentSettings, *, reader: TokenReader, where: Where, choosing: bool) -> dict[str, Any]:
    said = asdict(settings)
    if settings.decoder == "linear":
        del said["width"]
    if settings.tune != "lora":
        del said["rank"], said["alpha"]
    if settings.tune == "none":
        del said["layer_decay"]
    elif settings.layer_decay != 1 and not has_order(reader.backbone):
        said["layer_decay"] = NO_ORDER
    said["compare_at"] = "the mask's own size" if settings.compare_at is None else settings.compare_at
    if choosing:
        said["surface distances"] = "of test; validation only chose"
    return said | {
        "blocks": list(reader.blocks),
        "size": reader.preparation.size,
        "fit": reader.preparation.fit,
        "batch_size": reader.batch_size,
        "precision": reader.precision,
        "tokens": WHERE[where],
    }
