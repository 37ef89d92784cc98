"""What the networks make of a few films: attention, colours' tokens, and what the student tells of hidden patches."""

from typing import Any

import numpy as np
import pytest
import torch

from dinov2.batch import normalise
from dinov2.distributed import World
from dinov2.encoder.attention import cls_attention
from dinov2.train.monitors.film_passes import Glimpse, see_films
from dinov2.train.step import StepTools
from tests.distributed.sharded_steps import config_of, started

from .glimpses import PATCHES_BESIDE, glimpses, look_of, shown_on

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
SINKHORN, CENTERING = "train.centering=sinkhorn_knopp", "train.centering=centering"
DROPPING = "student.drop_path_rate=0.5"


def glimpse(tools: StepTools, *, batch_size: int = 3, hidden: bool = True) -> Glimpse:
    seen = see_films(tools, shown_on(ALONE, hidden=hidden), what=look_of(batch_size), temperature=0.07)
    assert seen is not None
    return seen


def films() -> torch.Tensor:
    return normalise(shown_on(ALONE).pixels, mean=(0.5,) * 3, std=(0.25,) * 3)


def beside_films() -> torch.Tensor:
    return normalise(shown_on(ALONE).beside, mean=(0.5,) * 3, std=(0.25,) * 3)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    np.testing.assert_allclose(ours["tokens"], theirs["tokens"], rtol=1e-3, atol=1e-3)
    for name in ("attention", "agreement"):
        assert np.abs(ours[name].astype(int) - theirs[name]).max() <= 1, name


@pytest.mark.parametrize("words", [(), ("student.num_register_tokens=2",), ("runtime.attention=explicit",)])
def test_attention_is_that_of_the_encoder_up_to_the_99th_percentile_of_each_film(words: tuple[str, ...]) -> None:
    tools = started(config_of(*words), world=ALONE)
    seen = glimpse(tools)
    with torch.no_grad():
        maps = cls_attention(tools.networks.teacher["backbone"], films()).mean(dim=1).numpy()
    expected = np.minimum(maps / np.quantile(maps, 0.99, axis=(1, 2), keepdims=True), 1) * 255
    np.testing.assert_allclose(seen.attention, expected, atol=0.51)
    assert (seen.attention.max(axis=(1, 2)) == 255).all()


@pytest.mark.parametrize("words", [(SINKHORN,), (CENTERING,), (SINKHORN, "ibot.separate_head=false")])
def test_agreement_is_one_less_the_loss_of_ibot_over_its_uniform_value(words: tuple[str, ...]) -> None:
    tools = started(config_of(*words), world=ALONE)
    networks, head = tools.networks, tools.networks.patch_head
    networks.student[head].last_layer.weight_g.data.fill_(0.3)  # so that some answers are better than a uniform one
    masks = torch.from_numpy(shown_on(ALONE).masks).flatten(1)
    with torch.no_grad():
        teacher = networks.teacher["backbone"].forward_features(films())["x_norm_patchtokens"][masks]
        student = networks.student["backbone"].forward_features(films(), masks)["x_norm_patchtokens"][masks]
        beside = networks.teacher["backbone"].forward_features(beside_films())["x_norm_patchtokens"]
        lent = torch.cat([tokens[list(some)] for tokens, some in zip(beside, PATCHES_BESIDE, strict=True)])
        loss, logits = networks.ibot_patch_loss, networks.teacher[head](torch.cat([teacher, lent]))
        targets = loss.balanced(logits, 0.07) if tools.objective.sinkhorn else loss.centred(logits, 0.07)
        features, prototypes = networks.student[head](student, as_projection=True)
        entropies = [
            float(
                -(
                    targets.rows(slice(row, row + 1))
                    * (features[row] @ prototypes.T / loss.student_temp).log_softmax(-1)
                ).sum()
            )
            for row in range(len(features))
        ]
    expected = np.clip(1 - np.array(entropies) / np.log(len(prototypes)), 0, 1) * 255
    told = glimpse(tools).agreement.reshape(masks.shape)[masks.numpy()]
    np.testing.assert_allclose(told, expected, atol=0.6)
    assert told.any()


def test_nothing_is_agreed_upon_where_nothing_is_hidden() -> None:
    tools = started(config_of(), world=ALONE)
    masks = shown_on(ALONE).masks
    assert not glimpse(tools).agreement[~masks].any()
    assert not glimpse(tools, hidden=False).agreement.any()


def test_without_ibot_the_films_are_seen_all_the_same() -> None:
    seen = glimpse(started(config_of("ibot.loss_weight=0"), world=ALONE), hidden=False)
    assert seen.attention.any()


def test_a_student_that_drops_paths_is_asked_without_and_drops_on_afterwards() -> None:
    tools = started(config_of(DROPPING), world=ALONE)
    assert np.array_equal(glimpse(tools).agreement, glimpse(tools).agreement)
    assert all(block.training for block in tools.networks.student["backbone"].blocks)


def test_the_size_of_a_batch_changes_nothing() -> None:
    few, all_at_once = (glimpses(ALONE, (SINKHORN,), batch_size=size, look_at=(2,)) for size in (1, 64))
    assert_same(few, all_at_once)


def test_weights_that_are_no_numbers_give_pictures_of_nothing() -> None:
    tools = started(config_of(), world=ALONE)
    tools.networks.teacher["backbone"].norm.weight.data.fill_(torch.nan)
    tools.networks.student["backbone"].norm.weight.data.fill_(torch.nan)
    seen = glimpse(tools)
    assert not seen.agreement.any()


@pytest.mark.parametrize("words", [(CENTERING,), (SINKHORN, DROPPING)])
def test_films_seen_between_steps_leave_the_training_as_it_was_to_the_bit(words: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    with_films = glimpses(ALONE, words, batch_size=2, look_at=(0, 1, 2))
    torch.manual_seed(0)
    without = glimpses(ALONE, words, batch_size=2, look_at=())
    for name, value in without["state"].items():
        assert np.array_equal(with_films["state"][name], value), name


def test_compiled_blocks_are_asked_as_they_are_written_and_stay_compiled() -> None:
    plain, compiled = (
        started(config_of(SINKHORN, f"runtime.compile={how}", "student.depth=1"), world=ALONE)
        for how in ("never", "always")
    )
    forms = [block.compute for block in compiled.networks.student["backbone"].blocks]
    np.testing.assert_allclose(glimpse(compiled).tokens, glimpse(plain).tokens, atol=1e-4)
    assert all(forms)
    assert [block.compute for block in compiled.networks.student["backbone"].blocks] == forms


def test_half_precision_sees_about_the_same() -> None:
    half, single = (glimpse(started(config_of(f"runtime.precision={name}"), world=ALONE)) for name in ("bf16", "fp32"))
    assert half.tokens.dtype == torch.float32
    assert np.abs(half.attention.astype(int) - single.attention).mean() < 8
