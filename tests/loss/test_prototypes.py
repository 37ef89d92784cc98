"""The chunked cross-entropy against the plain form: all logits, all targets, all at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from dinov2.forecast.live import LiveBytes, storages
from dinov2.layers import DINOHead
from dinov2.loss import (
    ONE_PROCESS,
    Assignment,
    centred_assignment,
    dino_loss,
    ibot_loss,
    prototype_cross_entropy,
    sinkhorn_assignment,
)

M, K, b = 37, 50, 16
VALUE = {"rtol": 1e-6, "atol": 0.0}
TEMPERATURE = 0.1


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return normalize(noise(*shape, seed=seed), dim=-1).to(dtype).requires_grad_()


def balanced(logits: Tensor, *, chunk_bytes: int = 11 * 4 * K) -> Assignment:
    return sinkhorn_assignment(logits, temperature=0.05, reductions=ONE_PROCESS, chunk_bytes=chunk_bytes)


def centred(logits: Tensor) -> Assignment:
    return centred_assignment(logits, center=noise(logits.shape[1], seed=5) * 0.1, temperature=0.05)


def assert_same_gradients(ours: list[Tensor], plain: list[Tensor], *, relative: float = 1e-5) -> None:
    """As vectors: an entry that is zero but for rounding has no relative error of its own."""
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == other.dtype
        difference = (one.double() - other.double()).norm()
        assert float(difference) <= relative * float(other.double().norm())


@pytest.mark.parametrize("rows", [1, 5, 8, 36, 37, 100])
@pytest.mark.parametrize("assign", [balanced, centred])
def test_patches_in_chunks_have_the_value_and_gradients_of_the_plain_form(rows: int, assign) -> None:
    assignment = assign(noise(M, K, seed=2) * 0.3)
    features, prototypes = unit(M, b), unit(K, b, seed=1)
    weights = noise(M, seed=3).abs()
    weights[4] = 0.0
    ours = prototype_cross_entropy(
        features, prototypes, assignment, weights=weights, temperature=TEMPERATURE, chunk_bytes=rows * K * 4
    )
    plain = ibot_loss(
        features @ prototypes.T, assignment.dense(), masks_weight=weights, num_pictures=1, temperature=TEMPERATURE
    )
    assert_close(ours, plain, **VALUE)
    assert_same_gradients(*(list(torch.autograd.grad(3.0 * value, (features, prototypes))) for value in (ours, plain)))


@pytest.mark.parametrize("assign", [balanced, centred])
def test_local_crops_against_both_teacher_crops_of_their_picture(assign) -> None:
    pictures, num_local = 4, 3
    assignment = assign(noise(2 * pictures, K, seed=2) * 0.3)
    features, prototypes = unit(num_local * pictures, b), unit(K, b, seed=1)
    both = torch.arange(2 * pictures).view(2, pictures).T.repeat(num_local, 1)
    ours = prototype_cross_entropy(
        features,
        prototypes,
        assignment,
        weights=torch.full((len(features),), 1 / pictures),
        temperature=TEMPERATURE,
        targets=both,
        chunk_bytes=5 * K * 4,
    )
    plain = dino_loss((features @ prototypes.T).chunk(num_local), assignment.dense().chunk(2), temperature=TEMPERATURE)
    assert_close(ours, plain, **VALUE)
    assert_same_gradients(*(list(torch.autograd.grad(value, (features, prototypes))) for value in (ours, plain)))


@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0, 1e5], ids=["collapsed", "usual", "large", "beyond exp"])
def test_whatever_the_scale_of_the_logits(scale: float) -> None:
    assignment = balanced(noise(M, K, seed=2) * max(scale, 1.0))
    features, prototypes = unit(M, b), (unit(K, b, seed=1).detach() * scale).requires_grad_()
    ours = prototype_cross_entropy(features, prototypes, assignment, weights=torch.ones(M), temperature=TEMPERATURE)
    plain = ibot_loss(
        features @ prototypes.T, assignment.dense(), masks_weight=torch.ones(M), num_pictures=1, temperature=TEMPERATURE
    )
    assert ours.isfinite()
    assert_close(ours, plain, **VALUE)
    assert_same_gradients(*(list(torch.autograd.grad(value, (features, prototypes))) for value in (ours, plain)))


def test_gradients_reach_the_weight_norm_and_the_layers_below_as_in_the_plain_form() -> None:
    torch.manual_seed(0)
    head = DINOHead(12, K, hidden_dim=24, bottleneck_dim=b)
    torch.nn.init.uniform_(head.last_layer.weight_g, 0.5, 2.0)
    tokens, assignment, weights = noise(M, 12), balanced(noise(M, K, seed=2) * 0.3), torch.ones(M)
    values = (
        prototype_cross_entropy(
            *head(tokens, as_projection=True),
            assignment,
            weights=weights,
            temperature=TEMPERATURE,
            chunk_bytes=10 * K * 4,
        ),
        ibot_loss(head(tokens), assignment.dense(), masks_weight=weights, num_pictures=1, temperature=TEMPERATURE),
    )
    names = dict(head.named_parameters())
    assert {"last_layer.weight_g", "last_layer.weight_v", "mlp.0.weight"} <= set(names)
    assert_same_gradients(*(list(torch.autograd.grad(value, list(names.values()))) for value in values))


@pytest.mark.parametrize("targets", [None, torch.zeros(0, 2, dtype=torch.int64)])
def test_without_rows_the_loss_is_zero_with_gradients_of_zero(targets: Tensor | None) -> None:
    features, prototypes = unit(0, b), unit(K, b)
    value = prototype_cross_entropy(
        features, prototypes, balanced(torch.zeros(0, K)), weights=torch.zeros(0), temperature=0.1, targets=targets
    )
    value.backward()
    assert float(value.detach()) == 0.0
    assert torch.equal(features.grad, torch.zeros(0, b))
    assert torch.equal(prototypes.grad, torch.zeros(K, b))


def test_only_what_needs_a_gradient_gets_one_and_the_value_is_the_same_without() -> None:
    assignment, weights = balanced(noise(M, K, seed=2)), torch.ones(M)

    def value(features: Tensor, prototypes: Tensor) -> Tensor:
        return prototype_cross_entropy(features, prototypes, assignment, weights=weights, temperature=TEMPERATURE)

    features, prototypes = unit(M, b), unit(K, b, seed=1)
    both = value(features, prototypes)
    wanted = torch.autograd.grad(both, (features, prototypes))
    (of_features,) = torch.autograd.grad(value(features, prototypes.detach()), (features,))
    (of_prototypes,) = torch.autograd.grad(value(features.detach(), prototypes), (prototypes,))
    assert torch.equal(of_features, wanted[0])
    assert torch.equal(of_prototypes, wanted[1])
    with torch.no_grad():
        silent = value(features, prototypes)
    assert not silent.requires_grad
    assert_close(silent, both.detach(), **VALUE)
    assert not value(features.detach(), prototypes.detach()).requires_grad


def test_the_same_twice_gives_the_same_bits() -> None:
    def gradients() -> tuple[Tensor, ...]:
        features, prototypes = unit(M, b, dtype=torch.bfloat16), unit(K, b, seed=1, dtype=torch.bfloat16)
        value = prototype_cross_entropy(
            features, prototypes, balanced(noise(M, K, seed=2)), weights=torch.ones(M), temperature=TEMPERATURE
        )
        return torch.autograd.grad(value, (features, prototypes))

    assert all(torch.equal(one, again) for one, again in zip(gradients(), gradients(), strict=True))


@dataclass(frozen=True)
class Rounding:
    """What a format loses: its spacing at 1, and so of a logit of 1; the temperature makes ten times as much of it."""

    dtype: torch.dtype

    @property
    def of_an_exponent(self) -> float:
        return torch.finfo(self.dtype).eps / TEMPERATURE


@pytest.mark.parametrize(
    ("rounding", "incoming"),
    [(Rounding(torch.bfloat16), 1.0), (Rounding(torch.bfloat16), 65_536.0), (Rounding(torch.float16), 65_536.0)],
    ids=["bf16", "bf16 scaled", "fp16 scaled"],
)
def test_half_precision_stays_as_close_to_float32_as_its_rounding(rounding: Rounding, incoming: float) -> None:
    """With K = 20,000 most gradients of logits are below 1e-4, and with a mean over rows below what fp16 can hold.

    Unscaled gradients that small are for nobody to read in fp16: that is what a loss scale is for.
    """
    rows, prototypes_in_all = 40, 20_000
    halves = [unit(rows, b, dtype=rounding.dtype), unit(prototypes_in_all, b, seed=1, dtype=rounding.dtype)]
    weights = torch.full((rows,), 1 / rows)
    weights[:5] /= 100
    teacher = (unit(rows, b, seed=2) @ unit(prototypes_in_all, b, seed=3).T).detach().to(rounding.dtype)
    assignment = sinkhorn_assignment(teacher, temperature=0.05, reductions=ONE_PROCESS, chunk_bytes=2**20)
    ours = prototype_cross_entropy(
        *halves, assignment, weights=weights, temperature=TEMPERATURE, chunk_bytes=7 * 4 * prototypes_in_all
    )
    exact = [half.detach().float().requires_grad_() for half in halves]
    plain = ibot_loss(
        exact[0] @ exact[1].T, assignment.dense(), masks_weight=weights, num_pictures=1, temperature=TEMPERATURE
    )
    assert_close(ours, plain, rtol=rounding.of_an_exponent / 10, atol=0.0)  # of ten, and errors of both signs cancel
    found = torch.autograd.grad(ours * incoming, halves)
    wanted = torch.autograd.grad(plain, exact)
    assert all(gradient.dtype == rounding.dtype for gradient in found)
    assert_same_gradients(
        [gradient.float() / incoming for gradient in found], list(wanted), relative=rounding.of_an_exponent
    )


def test_all_rows_on_one_prototype_do_not_overflow_fp16() -> None:
    rows = 600
    features = torch.zeros(rows, b, dtype=torch.float16)
    features[:, 0] = 1.0
    prototypes = torch.zeros(K, b, dtype=torch.float16)
    prototypes[0, 0] = 1.0
    prototypes[1, 0] = -1.0
    against = torch.zeros(rows, K)
    against[:, 1] = 100.0  # the teacher is as sure of the opposite
    value = prototype_cross_entropy(
        features.requires_grad_(),
        prototypes.requires_grad_(),
        centred_assignment(against, center=torch.zeros(K), temperature=0.05),
        weights=torch.ones(rows),
        temperature=0.01,
    )
    value.backward()
    assert float(value.detach()) == pytest.approx(200 * rows, rel=1e-3)
    assert features.grad.isfinite().all()
    (of_prototypes,) = torch.autograd.grad(
        ibot_loss(
            features.float() @ (wide := prototypes.detach().float().requires_grad_()).T,
            against.softmax(dim=1),
            masks_weight=torch.ones(rows),
            num_pictures=1,
            temperature=0.01,
        ),
        (wide,),
    )
    assert_close(prototypes.grad.float(), of_prototypes, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["features", "prototypes", "teacher", "incoming"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_not_finite_is_never_hidden(where: str, value: float, dtype: torch.dtype) -> None:
    features, prototypes = (unit(rows, b, seed=rows, dtype=dtype).detach() for rows in (M, K))
    teacher = noise(M, K)
    if where != "incoming":
        {"features": features, "prototypes": prototypes, "teacher": teacher}[where][3, 2] = value
    loss = prototype_cross_entropy(
        features.requires_grad_(),
        prototypes.requires_grad_(),
        balanced(teacher.to(dtype)),
        weights=torch.ones(M),
        temperature=TEMPERATURE,
    )
    assert bool(loss.isfinite()) == (where == "incoming")
    found = torch.autograd.grad(loss * (value if where == "incoming" else 1.0), (features, prototypes))
    assert not any(gradient.isfinite().all() for gradient in found)


def test_the_loss_never_holds_a_table_of_all_logits() -> None:
    rows, columns = 4096, 1024
    chunk = 64 * columns * 4
    features, prototypes = (unit(n, b, dtype=torch.bfloat16) for n in (rows, columns))
    teacher, weights = noise(rows, columns).to(torch.bfloat16), torch.ones(rows)
    gradients = 4 * b * (rows + columns)  # of features and prototypes, in float32
    with LiveBytes(weights=storages(iter([features, prototypes, teacher, weights]))) as live:
        assignment = balanced(teacher, chunk_bytes=chunk)
        assignment.mean()
        assignment.mean_entropy()
        loss = prototype_cross_entropy(
            features, prototypes, assignment, weights=weights, temperature=TEMPERATURE, chunk_bytes=chunk
        )
        forward = len(live.timeline())
        loss.backward()
    alive = live.timeline().sum(axis=1)
    assert alive.max() < 6 * chunk + 3 * gradients < rows * columns * 4 / 4
    assert alive[forward:].max() < 4 * gradients, "nothing of a chunk outlives the forward pass"


@pytest.fixture
def compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("compiler")
def test_compiled_chunks_give_the_same_and_another_batch_compiles_nothing_anew() -> None:
    def found(rows: int, temperature: float, *, compiled: bool) -> list[Tensor]:
        features, prototypes = unit(rows, b), unit(K, b, seed=1)
        assignment = sinkhorn_assignment(
            noise(rows, K, seed=2), temperature=temperature, reductions=ONE_PROCESS, compiled=compiled
        )
        value = prototype_cross_entropy(
            features,
            prototypes,
            assignment,
            weights=torch.ones(rows),
            temperature=TEMPERATURE,
            compiled=compiled,
            chunk_bytes=9 * K * 4,
        )
        return [assignment.center, value.detach(), *torch.autograd.grad(value, (features, prototypes))]

    found(M, 0.04, compiled=True)
    with torch.compiler.set_stance("fail_on_recompile"):
        for rows in (M, 12, 1):
            assert_same_gradients(found(rows, 0.05, compiled=True), found(rows, 0.05, compiled=False))


def test_rows_that_do_not_match_and_formats_that_differ_are_refused() -> None:
    assignment = balanced(noise(M, K))
    with pytest.raises(ValueError, match="5 rows of features, 5 weights and 37 targets"):
        prototype_cross_entropy(unit(5, b), unit(K, b), assignment, weights=torch.ones(5), temperature=0.1)
    with pytest.raises(ValueError, match=r"features are torch.float16 and prototypes torch.float32"):
        prototype_cross_entropy(
            unit(M, b, dtype=torch.float16), unit(K, b), assignment, weights=torch.ones(M), temperature=0.1
        )
