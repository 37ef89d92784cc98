"""Backbone and head give the numbers of the public code."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dinov2.layers import DINOHead
from dinov2.models import DinoVisionTransformer, load_part
from dinov2.models.key_maps import public_names

from .reference_cases import case_name, cases, load_case, under

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
VITS, HEADS = cases("vit"), cases("head")
TOKENS = ("x_norm_clstoken", "x_norm_regtokens", "x_norm_patchtokens", "x_prenorm")


def loaded_vit(case: dict[str, Any], tensors: dict[str, Tensor]) -> DinoVisionTransformer:
    vit = DinoVisionTransformer(**case["kwargs"]).eval()
    load_part(vit, public_names(under(tensors, "state_dict")), source=case["file"])
    return vit


@pytest.mark.parametrize("case", VITS, ids=case_name)
@torch.no_grad()
def test_tokens_of_every_recorded_input_agree_with_the_public_backbone(case: dict[str, Any]) -> None:
    tensors = load_case(case)
    vit = loaded_vit(case, tensors)
    inputs = [name.removesuffix(".input") for name in tensors if name.endswith(".input")]
    assert inputs
    for name in inputs:
        features = vit.forward_features(tensors[f"{name}.input"], tensors.get(f"{name}.masks"))
        recorded = [key for key in TOKENS if f"{name}.{key}" in tensors]
        assert recorded
        for key in recorded:
            assert_close(features[key], tensors[f"{name}.{key}"], **TOLERANCE)


@pytest.mark.parametrize("case", VITS, ids=case_name)
@torch.no_grad()
def test_intermediate_layers_agree_with_the_public_backbone(case: dict[str, Any]) -> None:
    tensors = load_case(case)
    count = len({name.split(".")[1] for name in tensors if name.startswith("intermediate.")})
    layers = loaded_vit(case, tensors).get_intermediate_layers(
        tensors["native.input"], count, reshape=True, return_class_token=True
    )
    assert len(layers) == count > 0
    for i, (patches, cls) in enumerate(layers):
        assert_close(patches, tensors[f"intermediate.{i}.patch"], **TOLERANCE)
        assert_close(cls, tensors[f"intermediate.{i}.cls"], **TOLERANCE)


@pytest.mark.parametrize("case", HEADS, ids=case_name)
@torch.no_grad()
def test_logits_agree_with_the_public_head(case: dict[str, Any]) -> None:
    tensors = load_case(case)
    head = DINOHead(**case["kwargs"])
    head.load_state_dict(under(tensors, "state_dict"), strict=True)
    assert_close(head(tensors["input"]), tensors["output"], **TOLERANCE)
