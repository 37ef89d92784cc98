"""Decoders on patch tokens: grids, where tokens are kept, masks brought back, volumes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dinov2.errors import ConfigError
from dinov2.eval.backbones import Backbone, Tokens
from dinov2.eval.outcome import Segmentations
from dinov2.eval.pictures import FITS, Preparation
from dinov2.eval.probes.decoders import DECODERS, DecoderName, blocks_of
from dinov2.eval.probes.finetune_augment import Augmentation
from dinov2.eval.probes.segment import segment
from dinov2.eval.probes.segment_overlap import MaskPair, mask_pair, segmentations_of
from dinov2.eval.probes.segment_probe import SegmentProbe, SegmentSettings
from dinov2.eval.probes.segment_sheet import write_sheet
from dinov2.eval.probes.segment_tokens import TokenReader, TokenSplit
from dinov2.eval.scores import mean_dice
from tests.eval.probes.films import PREPARATION, disc_data, discs, striped_data, tiny_backbone

FAST = SegmentSettings(decoder="linear", width=16, epochs=3, rank=4, alpha=8)


def _reader(*, decoder: DecoderName = "linear", backbone: Backbone | None = None, batch_size: int = 8) -> TokenReader:
    network = backbone or tiny_backbone()
    return TokenReader(
        backbone=network,
        blocks=blocks_of(decoder, depth=network.traits.depth),
        preparation=PREPARATION,
        batch_size=batch_size,
        workers=0,
        precision="fp32",
        device=torch.device("cpu"),
    )


def _segment(data: Any, reader: TokenReader, *, folder: Path, **changes: Any) -> Any:
    settings = replace(FAST, **{key: value for key, value in changes.items() if key in FAST.__dataclass_fields__})
    rest = {key: value for key, value in changes.items() if key not in FAST.__dataclass_fields__}
    given: dict[str, Any] = {"lrs": [1e-2], "backbone_lrs": [1e-3], "keep": "auto", "keep_limit_gb": 1.0} | rest
    return segment(data, reader, settings=settings, folder=folder, dataset="discs", **given)


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("decoder", DECODERS)
def test_planted_discs_are_found(decoder: DecoderName, tmp_path: Path) -> None:
    reader = _reader(decoder=decoder)
    outcome, probe, final = _segment(
        disc_data(16),
        reader,
        folder=tmp_path,
        decoder=decoder,
        epochs=14,
        lrs=[1e-5, 3e-2] if decoder == "linear" else [3e-2],
    )
    assert mean_dice(outcome.test) > 0.6
    assert outcome.chosen == {"lr": 3e-2}
    assert outcome.test.classes == ("bright", "dark")
    assert np.isfinite(outcome.test.hausdorff95).any()
    assert outcome.settings["tokens"] == "computed once, kept in memory"
    sheet = tmp_path / "films.png"
    data = disc_data()
    assert data.test is not None
    write_sheet(probe, final, TokenSplit(examples=data.test), path=sheet, num_films=3)
    assert sheet.stat().st_size > 10_000


def test_a_candidate_of_the_grid_does_not_depend_on_the_others() -> None:
    reader = _reader()
    split = reader.kept(discs(10, name="train", seed=1), file=None)
    probe = SegmentProbe(reader, settings=FAST, num_classes=3)
    together = probe.fit([{"lr": 1e-3}, {"lr": 1e-1}], split)
    alone = SegmentProbe(_reader(), settings=FAST, num_classes=3).fit([{"lr": 1e-3}], split)
    assert _same(together[0].decoder, alone[0].decoder)
    assert not _same(together[0].decoder, together[1].decoder)


def test_kept_tokens_give_what_tokens_of_every_epoch_give(tmp_path: Path) -> None:
    outcomes = [_segment(disc_data(10), _reader(decoder="unet"), folder=tmp_path, keep=keep, decoder="unet")
                for keep in ("ram", "disk", "none")]  # fmt: skip
    for outcome, _, final in outcomes[1:]:
        assert np.array_equal(outcome.test.true_positives, outcomes[0][0].test.true_positives)
        for name, value in final.decoder.items():
            torch.testing.assert_close(value, outcomes[0][2].decoder[name], rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.iterdir()), "files of tokens are removed at the end"


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_tuned_backbone_is_reset_before_every_fit(tune: Any) -> None:
    settings = replace(FAST, tune=tune, epochs=1)
    train = TokenSplit(examples=discs(8, name="train", seed=1))
    both = train.joined(TokenSplit(examples=discs(4, name="val", seed=2)))
    probe = SegmentProbe(_reader(), settings=settings, num_classes=3)
    rates = {"lr": 1e-2, "backbone_lr": 1e-3}
    start = {name: value.clone() for name, value in probe._start.items()}
    probe.fit([rates, rates], train)
    refit = probe.fit([rates], both)[0]
    fresh = SegmentProbe(_reader(), settings=settings, num_classes=3).fit([rates], both)[0]
    assert _same(refit.decoder, fresh.decoder)
    assert _same(refit.backbone, fresh.backbone)
    assert not _same(refit.backbone, start)


def test_a_frozen_backbone_stays_as_it_is(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    _segment(disc_data(6), _reader(backbone=backbone), folder=tmp_path, augmentation=Augmentation())
    assert _same(before, dict(backbone.state_dict()))


@pytest.mark.parametrize("fit", FITS)
def test_a_sure_answer_comes_back_to_the_size_of_the_mask(fit: Any) -> None:
    preparation = Preparation(size=64, fit=fit, mean=PREPARATION.mean, std=PREPARATION.std)
    examples = discs(1, name="x", seed=4, height=150, width=100)
    true = examples.reader.mask(0)
    prepared = torch.from_numpy(preparation.mask(true)).long()
    pair = mask_pair(torch.nn.functional.one_hot(prepared, 3).movedim(-1, 0).float(), true, preparation=preparation)
    assert pair.predicted.shape == true.shape
    rows, columns = preparation.placement(*true.shape).within
    assert (pair.predicted == true)[rows, columns].mean() > 0.98
    outside = np.ones(true.shape, dtype=bool)
    outside[rows, columns] = False
    assert not pair.predicted[outside].any()


def test_masks_can_be_compared_at_a_size_of_choice() -> None:
    true = discs(1, name="x", seed=4).reader.mask(0)
    pair = mask_pair(torch.rand(3, 32, 32), true, preparation=PREPARATION, compare_at=20)
    assert pair.predicted.shape == pair.true.shape == (20, 20)


def test_false_positives_on_background_count() -> None:
    examples = discs(1, name="x", seed=1)
    true, said = np.zeros((8, 8), dtype=np.uint8), np.zeros((8, 8), dtype=np.uint8)
    true[:4, :4] = 1
    said[:4] = 1  # 16 pixels more, all of them background
    found = segmentations_of(examples, [MaskPair(said, true)])
    assert found.true_positives.tolist() == [[16, 0]]
    assert found.false_positives.tolist() == [[16, 0]]
    assert mean_dice(found) == pytest.approx(2 / 3)


def test_slices_of_a_volume_are_one_case_whose_pixels_are_summed() -> None:
    examples = replace(discs(4, name="x", seed=1), volumes=np.asarray(["b", "a", "b", "a"]))
    pairs = []
    for i in range(4):
        true, said = np.zeros((2, 4, 4), dtype=np.uint8)
        true[: i + 1], said[0] = 1, 1
        pairs.append(MaskPair(said, true))
    found = segmentations_of(examples, pairs)
    assert found.ids.tolist() == ["b", "a"]
    assert found.patients.tolist() == ["patient of x0", "patient of x1"]
    assert found.true_positives[:, 0].tolist() == [8, 8]
    assert found.false_negatives[:, 0].tolist() == [0 + 8, 4 + 12]
    assert np.isfinite(found.hausdorff95[:, 0]).all()
    assert np.isnan(found.hausdorff95[:, 1]).all()


class _Pooled(Backbone):
    """A network that has no patch tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 8)
        self.traits = replace(tiny_backbone().traits, name="resnet", patch_size=None)

    def layers(self, pictures: torch.Tensor, n: int) -> list[Tokens]:
        return [Tokens(cls=self.map(pictures.mean(dim=(2, 3))), patches=None, grid=None)] * n

    def parts(self) -> list[list[tuple[str, nn.Parameter]]]:
        raise ValueError("no order")


def test_a_backbone_without_patch_tokens_is_refused_in_one_message() -> None:
    with pytest.raises(ConfigError, match="resnet has no patch tokens"):
        _reader(backbone=_Pooled()).check()


def test_labels_instead_of_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--masks"):
        _segment(striped_data(4), _reader(), folder=tmp_path)


@pytest.mark.parametrize("changes", [{"tune": "full"}, {"augmentation": Augmentation()}])
def test_tokens_that_change_cannot_be_kept(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="change from epoch to epoch"):
        _segment(disc_data(4), _reader(), folder=tmp_path, keep="ram", **changes)


def test_a_tuned_backbone_learns_from_masks(tmp_path: Path) -> None:
    outcome, _, final = _segment(
        disc_data(), _reader(), folder=tmp_path, tune="full", epochs=8, backbone_lrs=[2e-3], augmentation=Augmentation()
    )
    assert isinstance(outcome.test, Segmentations)
    assert final.losses[-1] < 0.9 * final.losses[0]
    assert outcome.settings["tokens"] == "computed from the pictures in every epoch"
    assert outcome.chosen == {"lr": 1e-2, "backbone_lr": 2e-3}
