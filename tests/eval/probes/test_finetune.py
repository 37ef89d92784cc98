"""Training of a backbone on pictures: what learns, where fits start, what validation and test are for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dinov2.distributed import World
from dinov2.errors import ConfigError, WeightsError
from dinov2.eval.backbones import Tokens
from dinov2.eval.backbones.ours import DinoBackbone
from dinov2.eval.examples import UNCERTAIN, Examples
from dinov2.eval.features import join_examples
from dinov2.eval.outcome import Predictions
from dinov2.eval.probes.adapters import MODES, Mode
from dinov2.eval.probes.finetune import finetune
from dinov2.eval.probes.finetune_groups import parameter_groups, warmup_cosine
from dinov2.eval.probes.finetune_probe import FinetuneProbe, FinetuneSettings, Tuned
from dinov2.eval.probes.finetune_saving import HEAD_NAME, load_tuned, save_tuned
from dinov2.eval.probes.finetune_steps import epoch_batches, steps_per_epoch
from dinov2.eval.scores import macro_auroc
from tests.distributed.processes import on_ranks
from tests.eval.probes.films import PREPARATION, striped, striped_data, tiny_backbone

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
FAST = FinetuneSettings(epochs=2, batch_size=12, workers=0, rank=4, alpha=8, augmentation=None)
RATES = {"backbone_lr": 1e-3, "head_lr": 1e-2}


def _probe(backbone: DinoBackbone | None = None, *, watched: Examples | None = None, **changes: Any) -> FinetuneProbe:
    return FinetuneProbe(
        backbone or tiny_backbone(),
        settings=replace(FAST, **changes),
        preparation=PREPARATION,
        world=ALONE,
        score=macro_auroc,
        watched=watched,
    )


def _same(one: Tuned, other: Tuned) -> bool:
    pairs = [(one.backbone, other.backbone), (one.head, other.head)]
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)


@pytest.mark.parametrize("mode", MODES)
def test_the_backbone_is_reset_before_every_fit_and_so_before_the_refit(mode: Mode) -> None:
    train, val = striped(24, name="train", seed=1), striped(12, name="val", seed=2)
    probe = _probe(mode=mode)
    first = probe.fit([RATES, {**RATES, "backbone_lr": 1e-2}], train)
    refit = probe.fit([RATES], join_examples(train, val))[0]
    fresh = _probe(mode=mode).fit([RATES], join_examples(train, val))[0]
    assert _same(refit, fresh), "the refit depends on what was fitted before it"
    assert _same(first[0], _probe(mode=mode).fit([RATES], train)[0]), "a candidate depends on those beside it"


@pytest.mark.parametrize("mode", ["full", "lora", "bitfit"])
def test_the_refit_trains_the_backbone_and_not_the_head_alone(mode: Mode) -> None:
    split = join_examples(striped(24, name="train", seed=1), striped(12, name="val", seed=2))
    probe = _probe(mode=mode)
    start = {name: value.clone() for name, value in probe._start.items()}
    learnt = probe.fit([RATES], split)[0].backbone
    assert any(not torch.equal(learnt[name], start[name]) for name in start)
    assert all(torch.equal(probe._start[name], start[name]) for name in start)


def test_mode_frozen_trains_nothing_of_the_backbone() -> None:
    backbone = tiny_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    probe = _probe(backbone, mode="frozen")
    fitted = probe.fit([RATES], striped(24, name="train", seed=1))[0]
    assert not fitted.backbone
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert float(fitted.head["weight"].abs().sum()) > 0


class _Noting(DinoBackbone):
    """Notes whether each pass was in train mode."""

    def layers(self, pictures: torch.Tensor, n: int) -> list[Tokens]:
        self.__dict__.setdefault("modes", []).append(self.training and torch.is_grad_enabled())
        return super().layers(pictures, n)


def test_the_backbone_is_in_train_mode_again_after_every_evaluation() -> None:
    plain = tiny_backbone()
    backbone = _Noting(plain.vit, traits=plain.traits)
    train, val = striped(24, name="train", seed=1), striped(12, name="val", seed=2)
    probe = _probe(backbone, watched=val)
    probe.fit([RATES], train)
    assert backbone.modes == [True, True, False] * 2  # two steps, then the evaluation, of two epochs


def test_validation_is_scored_every_epoch_until_it_is_trained_on() -> None:
    train, val = striped(24, name="train", seed=1), striped(12, name="val", seed=2)
    probe = _probe(watched=val)
    probe.fit([RATES], train)
    probe.fit([RATES], join_examples(train, val))
    assert [one["validation"] is not None for one in probe.epochs] == [True, True, False, False]


@pytest.mark.parametrize("mode", MODES)
def test_planted_findings_are_found_and_rates_chosen_on_validation(mode: Mode) -> None:
    outcome, _, final = finetune(
        striped_data(),
        tiny_backbone(),
        settings=replace(FAST, mode=mode, epochs=6),
        backbone_lrs=[1e-12, 2e-3],
        head_lrs=[1e-2],
        preparation=PREPARATION,
        metric="macro_auroc",
        dataset="stripes",
        world=ALONE,
    )
    assert isinstance(outcome.test, Predictions)
    assert macro_auroc(outcome.test) > (0.8 if mode == "frozen" else 0.9)
    assert len(outcome.trail) == (1 if mode == "frozen" else 2)
    best = max(outcome.trail, key=lambda one: one["validation"])
    assert outcome.chosen["backbone_lr"] == best["backbone_lr"]
    assert outcome.fitted_on == "train + val"
    assert outcome.counts == {"train": 48, "val": 24, "test": 24}
    assert final.losses[-1] < final.losses[0]
    assert (outcome.settings["of the backbone or added, that learn"] == 0) == (mode == "frozen")


def test_labels_of_test_do_not_change_what_is_chosen_or_predicted() -> None:
    data = striped_data(24)
    assert data.test is not None
    swapped = replace(data, test=replace(data.test, labels=1 - data.test.labels))
    outcomes = [
        finetune(
            one,
            tiny_backbone(),
            settings=replace(FAST, mode="lora"),
            backbone_lrs=[1e-3, 1e-2],
            head_lrs=[1e-2],
            preparation=PREPARATION,
            metric="macro_auroc",
            dataset="stripes",
            world=ALONE,
        )[0]
        for one in (data, swapped)
    ]
    assert outcomes[0].chosen == outcomes[1].chosen
    assert np.array_equal(outcomes[0].test.scores, outcomes[1].test.scores)  # type: ignore[union-attr]


def test_a_class_that_is_uncertain_everywhere_leaves_the_others_untouched() -> None:
    train = striped(24, name="train", seed=1)
    masked = replace(train, labels=np.where([[False, True]], np.float32(UNCERTAIN), train.labels))
    probe = _probe(mode="frozen")
    fitted = probe.fit([RATES], masked)[0]
    assert float(fitted.head["bias"][1]) == 0
    assert float(fitted.head["bias"][0]) != 0


def test_a_batch_of_one_picture_keeps_its_dimension() -> None:
    probe = _probe(mode="frozen", batch_size=12)
    fitted = probe.fit([RATES], striped(13, name="train", seed=1))[0]
    assert probe.predict(fitted, striped(1, name="test", seed=3)).scores.shape == (1, 2)


def test_layers_learn_slower_towards_the_input() -> None:
    backbone = tiny_backbone()
    head = torch.nn.Linear(2, 2)
    groups = parameter_groups(backbone, head, backbone_lr=1.0, head_lr=5.0, weight_decay=0.1, layer_decay=0.5)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert rate[id(backbone.vit.norm.weight)] == 1.0
    assert [rate[id(block.attn.qkv.weight)] for block in backbone.vit.blocks] == [0.125, 0.25, 0.5]
    assert rate[id(backbone.vit.patch_embed.proj.weight)] == 0.0625
    assert rate[id(head.weight)] == 5.0
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays[id(head.bias)] == 0
    assert decays[id(head.weight)] == 0.1


def test_the_rate_rises_over_the_warm_up_and_ends_at_zero() -> None:
    values = [warmup_cosine(step, total=20, warmup=4) for step in range(21)]
    assert values[:4] == [0.25, 0.5, 0.75, 1.0]
    assert values[4:] == sorted(values[4:], reverse=True)
    assert values[20] == pytest.approx(0)


@pytest.mark.parametrize("num", [7, 12, 13, 23])
def test_processes_share_every_batch_and_see_each_picture_once(num: int) -> None:
    split = striped(num, name="x", seed=1)
    seen: list[list[int]] = []
    for rank in range(2):
        world = replace(ALONE, rank=rank, size=2)
        found = epoch_batches(
            split, preparation=PREPARATION, augment=None, batch_size=6, workers=0, seed=0, epoch=0, world=world
        )
        parts = list(found)
        assert len(parts) == steps_per_epoch(num, batch_size=6, world=world)
        seen.append([int(row) for batch, _ in parts for row in batch.rows])
    assert not set(seen[0]) & set(seen[1])
    waiting = 1 if num % 6 == 1 else 0  # one picture cannot be shared by two
    assert len(seen[0]) + len(seen[1]) == num - waiting


@pytest.mark.parametrize("mode", MODES)
def test_what_was_learnt_is_saved_and_opens_again(mode: Mode, tmp_path: Path) -> None:
    split = striped(12, name="train", seed=1)
    probe = _probe(mode=mode)
    fitted = probe.fit([RATES], split)[0]
    pictures = torch.randn(2, 3, 32, 32)
    probe.predict(fitted, split)
    expected = probe.backbone.eval()(pictures)
    written = save_tuned(
        tmp_path, backbone=probe.backbone, tuned=fitted.backbone, head=fitted.head, mode=mode, rank=4, alpha=8
    )
    assert (tmp_path / HEAD_NAME) in written
    assert all(path.exists() for path in written)
    if mode in ("lora", "bitfit"):
        again = tiny_backbone()
        assert load_tuned(again, tmp_path / "tuned.safetensors") == mode
        torch.testing.assert_close(again.eval()(pictures).cls, expected.cls)
        with pytest.raises(WeightsError, match="was tuned from tiny"):
            load_tuned(tiny_backbone(seed=1), tmp_path / "tuned.safetensors")
    if mode != "frozen":
        state = load_file(tmp_path / "backbone" / "backbone.safetensors")
        vit = tiny_backbone(seed=9)
        vit.vit.load_state_dict(state)
        torch.testing.assert_close(vit(pictures).cls, expected.cls, rtol=1e-4, atol=1e-5)


def test_masks_and_volumes_are_refused_with_what_to_take_instead() -> None:
    from tests.eval.probes.films import disc_data

    arguments: dict[str, Any] = {
        "settings": FAST,
        "backbone_lrs": [1e-4],
        "head_lrs": [1e-3],
        "preparation": PREPARATION,
        "metric": "macro_auroc",
        "dataset": "x",
        "world": ALONE,
    }
    with pytest.raises(ConfigError, match="segment"):
        finetune(disc_data(2), tiny_backbone(), **arguments)
    data = striped_data(4)
    volumes = replace(data.train, volumes=np.asarray(["a", "a", "b", "b"]))
    with pytest.raises(ConfigError, match="linear"):
        finetune(replace(data, train=volumes), tiny_backbone(), **arguments)


def _learn_and_say(world: World) -> tuple[tuple[float, ...], np.ndarray[Any, Any]]:
    """Losses of the epochs, and scores of test."""
    settings, val = replace(FAST, mode="lora"), striped(7, name="val", seed=2)
    probe = FinetuneProbe(
        tiny_backbone(), settings=settings, preparation=PREPARATION, world=world, score=macro_auroc, watched=val
    )
    fitted = probe.fit([RATES], striped(24, name="train", seed=1))[0]
    return fitted.losses, probe.predict(fitted, striped(9, name="test", seed=3)).scores


def test_two_processes_learn_and_say_what_one_does() -> None:
    (first, said), (_, said_too) = on_ranks(_learn_and_say)
    assert np.array_equal(said, said_too)
    probe = _probe(mode="lora")
    fitted = probe.fit([RATES], striped(24, name="train", seed=1))[0]
    np.testing.assert_allclose(first, fitted.losses, rtol=1e-4)
    np.testing.assert_allclose(
        said, probe.predict(fitted, striped(9, name="test", seed=3)).scores, rtol=1e-3, atol=1e-4
    )
