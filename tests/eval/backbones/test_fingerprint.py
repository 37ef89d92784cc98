import torch

from dinov2.eval.backbones.fingerprint import fingerprint_of


def state() -> dict[str, torch.Tensor]:
    return {
        "a.weight": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor(1.0),
        "c": torch.ones(2, dtype=torch.bfloat16),
    }


def test_equal_weights_have_equal_fingerprints_in_any_order_and_layout() -> None:
    other = dict(reversed(state().items()))
    other["a.weight"] = other["a.weight"].T.contiguous().T
    assert fingerprint_of(other, heads=2) == fingerprint_of(state(), heads=2)


def test_a_name_a_value_a_shape_a_format_or_the_number_of_heads_changes_the_fingerprint() -> None:
    changes = [
        {"a.bias": state()["a.weight"], "b": state()["b"], "c": state()["c"]},
        state() | {"a.weight": state()["a.weight"] + torch.eye(3)[:2] * 1e-6},
        state() | {"a.weight": state()["a.weight"].reshape(3, 2)},
        state() | {"b": torch.tensor(1.0, dtype=torch.float64)},
    ]
    every = [fingerprint_of(change, heads=2) for change in [state(), *changes]] + [fingerprint_of(state(), heads=4)]
    assert len(set(every)) == 6
