import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from dinov2.batch import Views
from dinov2.config import schema
from dinov2.loss import koleo_loss
from dinov2.ssl import Losses, Networks, Objective, build_networks

STUDENT = schema.Student(
    arch="vit_custom", patch_size=8, embed_dim=32, depth=2, num_heads=2, layerscale=1.0, drop_path_rate=0.0
)
DINO = schema.Dino(head_n_prototypes=48, head_hidden_dim=32, head_bottleneck_dim=16)
IBOT = schema.Ibot(head_n_prototypes=40, head_hidden_dim=32, head_bottleneck_dim=16)
ALL = Objective(dino_weight=1.0, koleo_weight=0.1, ibot_weight=1.0, sinkhorn=True)


def FULL(side: str, part: str) -> AbstractContextManager[None]:
    """Every part in full precision."""
    return nullcontext()


def networks(*, dino: schema.Dino = DINO, ibot: schema.Ibot = IBOT, seed: int = 0) -> Networks:
    torch.manual_seed(seed)
    return build_networks(student=STUDENT, dino=dino, ibot=ibot, img_size=32, attention="sdpa", reductions=None).train()


def views(*, num_pictures: int = 4, num_local: int = 2, masked_rows: tuple[int, ...] = (0, 2, 5)) -> Views:
    generator = torch.Generator().manual_seed(1)
    masks = torch.zeros(2 * num_pictures, 16, dtype=torch.bool)
    for i, row in enumerate(masked_rows):
        masks[row, : 3 + i] = True
    return Views(
        global_crops=torch.randn(2 * num_pictures, 3, 32, 32, generator=generator),
        local_crops=torch.randn(num_local * num_pictures, 3, 16, 16, generator=generator),
        masks=masks,
    )


def test_the_total_is_the_weighted_sum_of_the_terms() -> None:
    objective = replace(ALL, dino_weight=0.7, ibot_weight=1.3)
    losses = objective(networks(), views(), teacher_temperature=0.05, formats=FULL)
    dino = losses.terms["dino_local_crops_loss"] + losses.terms["dino_global_crops_loss"]
    expected = 0.7 * dino + 2 * losses.terms["koleo_loss"] + 1.3 * 2 * losses.terms["ibot_loss"]
    torch.testing.assert_close(losses.total, expected)


def test_cross_entropies_of_a_uniform_student_and_teacher_are_ln_of_the_prototypes() -> None:
    collapsed = networks()
    for parts in (collapsed.student, collapsed.teacher):
        nn.init.zeros_(parts["dino_head"].last_layer.weight_g)
    losses = ALL(collapsed, views(), teacher_temperature=0.05, formats=FULL)
    assert set(losses.cross_entropies) == {"dino_local", "dino_global", "ibot"}
    for name, value in losses.cross_entropies.items():
        assert float(value.detach() / losses.counted[name]) == pytest.approx(math.log(48), rel=1e-5)
    assert float(losses.teacher_entropy) == pytest.approx(math.log(48), rel=1e-5)
    assert float(torch.special.entr(losses.teacher_marginal).sum()) == pytest.approx(math.log(48), rel=1e-5)


def test_each_student_crop_is_compared_with_the_teachers_other_crop() -> None:
    """With local crops absent, swapping the two crops of every picture changes nothing."""
    some = views(num_local=0)
    flipped = replace(some, global_crops=some.global_crops.roll(4, 0), masks=some.masks.roll(4, 0))
    one, other = (ALL(networks(), v, teacher_temperature=0.05, formats=FULL) for v in (some, flipped))
    torch.testing.assert_close(one.total, other.total)


@pytest.mark.parametrize(
    ("objective", "used", "unused"),
    [
        (replace(ALL, dino_weight=0.0), {"koleo_loss", "ibot_loss"}, set()),
        (replace(ALL, ibot_weight=0.0), {"dino_local_crops_loss", "dino_global_crops_loss", "koleo_loss"}, set()),
        (replace(ALL, koleo_weight=0.0), {"dino_local_crops_loss", "dino_global_crops_loss", "ibot_loss"}, set()),
        (replace(ALL, dino_weight=0.0, koleo_weight=0.0), {"ibot_loss"}, set()),
        (replace(ALL, dino_weight=0.0, ibot_weight=0.0), {"koleo_loss"}, {"dino_head"}),
    ],
    ids=["no DINO", "no iBOT", "no KoLeo", "iBOT alone", "KoLeo alone"],
)
def test_a_term_of_weight_zero_is_not_computed(objective: Objective, used: set[str], unused: set[str]) -> None:
    these = networks()
    losses = objective(these, views(), teacher_temperature=0.05, formats=FULL)
    losses.total.backward()
    assert set(losses.terms) == used
    for part in unused:
        assert all(p.grad is None for p in these.student[part].parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in these.student["backbone"].parameters())


def test_without_ibot_the_student_sees_whole_pictures() -> None:
    objective = replace(ALL, ibot_weight=0.0)
    masked, plain = (
        objective(networks(), views(masked_rows=rows), teacher_temperature=0.05, formats=FULL) for rows in ((0, 1), ())
    )
    torch.testing.assert_close(masked.total, plain.total)


def test_without_local_crops_the_loss_is_the_mean_over_the_global_pairs() -> None:
    losses = replace(ALL, koleo_weight=0.0, ibot_weight=0.0)(
        networks(), views(num_local=0), teacher_temperature=0.05, formats=FULL
    )
    torch.testing.assert_close(losses.total, losses.cross_entropies["dino_global"])
    assert "dino_local_crops_loss" not in losses.terms


@pytest.mark.parametrize("sinkhorn", [True, False])
def test_a_batch_without_masked_patches_has_no_ibot_loss_and_finite_gradients(sinkhorn: bool) -> None:
    these = networks()
    losses = replace(ALL, sinkhorn=sinkhorn)(these, views(masked_rows=()), teacher_temperature=0.05, formats=FULL)
    losses.total.backward()
    assert float(losses.terms["ibot_loss"].detach()) == 0.0
    assert all(p.grad is None or p.grad.isfinite().all() for p in these.student.parameters())
    assert these.ibot_patch_loss.center.isfinite().all()


def test_the_teacher_gets_no_gradient_and_starts_as_the_student() -> None:
    these = networks()
    ALL(these, views(), teacher_temperature=0.05, formats=FULL).total.backward()
    assert all(p.grad is None for p in these.teacher.parameters())
    for name, value in these.student.state_dict().items():
        torch.testing.assert_close(these.teacher.state_dict()[name], value)


def test_centering_moves_the_centres_and_sinkhorn_leaves_them() -> None:
    for sinkhorn in (True, False):
        these = networks()
        replace(ALL, sinkhorn=sinkhorn)(these, views(), teacher_temperature=0.05, formats=FULL)
        moved = bool(these.dino_loss.center.abs().sum() > 0) and bool(these.ibot_patch_loss.center.abs().sum() > 0)
        assert moved == (not sinkhorn)


def test_state_dict_has_the_public_names() -> None:
    names = set(networks(ibot=replace(IBOT, separate_head=True)).state_dict())
    assert {
        "student.backbone.cls_token",
        "student.dino_head.last_layer.weight_g",
        "teacher.ibot_head.mlp.0.weight",
    } <= names
    assert {"dino_loss.center", "ibot_patch_loss.center"} <= names


def test_a_head_that_no_loss_needs_is_not_built() -> None:
    alone = networks(dino=replace(DINO, loss_weight=0.0), ibot=replace(IBOT, separate_head=True))
    assert set(alone.student) == {"backbone", "ibot_head"}
    shared = networks(dino=replace(DINO, loss_weight=0.0))
    assert set(shared.student) == {"backbone", "dino_head"}


def plain_total(these: Networks, some: Views, *, objective: Objective, temperature: float) -> dict[str, torch.Tensor]:
    """The losses by the public modules: every logit of student and teacher at once."""
    num_local = len(some.local_crops) // some.num_pictures
    heads = these.patch_head
    with torch.no_grad():
        seen = these.teacher["backbone"](some.global_crops, is_training=True)
        cls = these.teacher["dino_head"](seen["x_norm_clstoken"])
        patches = these.teacher[heads](seen["x_norm_patchtokens"][some.masks])
        targets = [
            loss.sinkhorn_knopp_teacher(logits, temperature)
            if objective.sinkhorn
            else loss.softmax_center_teacher(logits, temperature)
            for loss, logits in ((these.dino_loss, cls), (these.ibot_patch_loss, patches))
        ]
    on_global, on_local = these.student["backbone"](
        [some.global_crops, some.local_crops], [some.masks, None], is_training=True
    )
    head = these.student["dino_head"]
    of_global, of_local = (head(features["x_norm_clstoken"]) for features in (on_global, on_local))
    num_pairs = 2 + 2 * num_local
    swapped = list(reversed(targets[0].chunk(2)))
    terms = {
        "dino_global_crops_loss": sum(
            these.dino_loss([crop], [target]) for crop, target in zip(of_global.chunk(2), swapped, strict=True)
        )
        / num_pairs,
        "dino_local_crops_loss": these.dino_loss(of_local.chunk(num_local), targets[0].chunk(2)) / num_pairs,
        "koleo_loss": sum(koleo_loss(crop) for crop in on_global["x_norm_clstoken"].chunk(2))
        * objective.koleo_weight
        / 2,
        "ibot_loss": these.ibot_patch_loss.forward_masked(
            these.student[heads](on_global["x_norm_patchtokens"][some.masks]),
            targets[1],
            student_masks_flat=some.masks,
        )
        / 2,
    }
    dino = terms["dino_global_crops_loss"] + terms["dino_local_crops_loss"]
    both = objective.dino_weight * dino + 2 * objective.ibot_weight * terms["ibot_loss"]
    return terms | {"total": both + 2 * terms["koleo_loss"], "assigned": targets[0]}


def gradients_of(value: torch.Tensor, these: Networks) -> dict[str, torch.Tensor]:
    named = {name: parameter for name, parameter in these.student.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(named, found, strict=True) if gradient is not None}


@pytest.mark.parametrize("separate_head", [False, True])
@pytest.mark.parametrize("sinkhorn", [True, False])
def test_every_term_and_every_gradient_is_that_of_the_public_modules(sinkhorn: bool, separate_head: bool) -> None:
    these = networks(ibot=replace(IBOT, separate_head=separate_head))
    these.dino_loss.center.normal_(std=0.1)
    for parts in (these.student, these.teacher):
        nn.init.uniform_(parts["dino_head"].last_layer.weight_g, 0.5, 2.0)
    objective = replace(ALL, sinkhorn=sinkhorn, dino_weight=0.7, ibot_weight=1.3)
    plain = plain_total(these, views(), objective=objective, temperature=0.05)
    ours = objective(these, views(), teacher_temperature=0.05, formats=FULL)
    for name, value in ours.terms.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(ours.total, plain["total"], rtol=1e-6, atol=0.0)
    entropy = torch.special.entr(plain["assigned"]).sum(dim=1).mean()
    torch.testing.assert_close(ours.teacher_entropy, entropy)
    torch.testing.assert_close(ours.teacher_marginal, plain["assigned"].mean(dim=0))
    found, wanted = (gradients_of(value, these) for value in (ours.total, plain["total"]))
    assert found.keys() == wanted.keys()
    assert any("weight_g" in name for name in found)
    largest = max(float(gradient.norm()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        # key biases have no gradient but rounding
        bound = 1e-5 * max(float(gradient.norm()), 1e-3 * largest)
        assert float((found[name] - gradient).norm()) <= bound, name


def HALF(side: str, part: str) -> AbstractContextManager[None]:
    """Every part in bfloat16."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


def test_in_half_precision_the_losses_are_float32_and_near_those_in_full() -> None:
    def losses(formats: object) -> Losses:
        return ALL(networks(), views(), teacher_temperature=0.05, formats=formats)

    full, half = losses(FULL), losses(HALF)
    half.total.backward()
    for name, value in half.terms.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full.terms[name], rtol=0.03, atol=0.0)


def test_a_logit_that_is_not_finite_makes_the_total_and_a_gradient_not_finite() -> None:
    these = networks()
    with torch.no_grad():
        these.student["dino_head"].last_layer.weight_g[3] = float("inf")
    losses = ALL(these, views(), teacher_temperature=0.05, formats=FULL)
    losses.total.backward()
    assert not losses.total.isfinite()
    assert not all(p.grad is None or p.grad.isfinite().all() for p in these.student.parameters())
