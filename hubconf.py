"""Entry points of `torch.hub.load`: the public names of DINOv2's networks, with weights from wherever yours are.

    torch.hub.load("PATH/TO/THIS/REPOSITORY", "dinov2_vitb14", source="local", pretrained="exported")

`pretrained` is a folder of `dinov2 export`, a run of `dinov2 train`, a `.pth` or `.safetensors` file, a Hugging Face
folder or hub id OWNER/NAME; or False for random weights. No weights are shipped, so True is refused with a reason, and
where nothing is said the weights are random and a warning says so. Other words are arguments of the constructor:
`img_size`, `in_chans`, `drop_path_rate`, ... Random networks need torch, numpy and safetensors alone.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

# Whatever has no underscore before its name here is an entry point to torch.hub.
if _TYPE_CHECKING:
    from dinov2.formats.torch_hub import Head as _Head
    from dinov2.formats.torch_hub import LinearClassifier as _Classifier
    from dinov2.formats.torch_hub import Pretrained as _Pretrained
    from dinov2.models.vision_transformer import DinoVisionTransformer as _Backbone

dependencies = ["torch", "numpy", "safetensors"]


def dinov2_vits14(*, pretrained: "_Pretrained" = None, **words: _Any) -> "_Backbone":
    """ViT-S/14: width 384, 12 blocks, 6 heads. `pretrained`: a path, a hub id, or False."""
    return _backbone("vit_small", registers=False, pretrained=pretrained, **words)


def dinov2_vitb14(*, pretrained: "_Pretrained" = None, **words: _Any) -> "_Backbone":
    """ViT-B/14: width 768, 12 blocks, 12 heads. `pretrained`: a path, a hub id, or False."""
    return _backbone("vit_base", registers=False, pretrained=pretrained, **words)


def dinov2_vitl14(*, pretrained: "_Pretrained" = None, **words: _Any) -> "_Backbone":
    """ViT-L/14: width 1024, 24 blocks, 16 heads. `pretrained`: a path, a hub id, or False."""
    return _backbone("vit_large", registers=False, pretrained=pretrained, **words)


def dinov2_vitg14(*, pretrained: "_Pretrained" = None, **words: _Any) -> "_Backbone":
    """ViT-g/14: width 1536, 40 blocks, 24 heads, SwiGLU. `pretrained`: a path, a hub id, or False."""
    return _backbone("vit_giant2", registers=False, pretrained=pretrained, **words)


def dinov2_vits14_reg(*, pretrained: "_Pretrained" = None, **words: _Any) -> "_Backbone":
    """ViT-S/14 with 4 registers: width 384, 12 blocks, 6 heads. `pretrained`: a path, a hub id, or False."""
    return _backbone("vit_small", registers=True, pretrained=pretrained, **words)


def dinov2_vitb14_reg(*, pretrained: "_Pretrained" = None, **words: _Any) -> "_Backbone":
    """ViT-B/14 with 4 registers: width 768, 12 blocks, 12 heads. `pretrained`: a path, a hub id, or False."""
    return _backbone("vit_base", registers=True, pretrained=pretrained, **words)


def dinov2_vitl14_reg(*, pretrained: "_Pretrained" = None, **words: _Any) -> "_Backbone":
    """ViT-L/14 with 4 registers: width 1024, 24 blocks, 16 heads. `pretrained`: a path, a hub id, or False."""
    return _backbone("vit_large", registers=True, pretrained=pretrained, **words)


def dinov2_vitg14_reg(*, pretrained: "_Pretrained" = None, **words: _Any) -> "_Backbone":
    """ViT-g/14 with 4 registers: width 1536, 40 blocks, 24 heads, SwiGLU. `pretrained`: a path, a hub id, or False."""
    return _backbone("vit_giant2", registers=True, pretrained=pretrained, **words)


def dinov2_vits14_lc(
    *, pretrained: "_Pretrained" = None, layers: int | None = None, head: "_Head" = None, **words: _Any
) -> "_Classifier":
    """Logits of a linear head on `dinov2_vits14`. `layers`: 1 or 4 blocks; `head`: the file of the head."""
    return _classifier("vit_small", registers=False, pretrained=pretrained, layers=layers, head=head, **words)


def dinov2_vitb14_lc(
    *, pretrained: "_Pretrained" = None, layers: int | None = None, head: "_Head" = None, **words: _Any
) -> "_Classifier":
    """Logits of a linear head on `dinov2_vitb14`. `layers`: 1 or 4 blocks; `head`: the file of the head."""
    return _classifier("vit_base", registers=False, pretrained=pretrained, layers=layers, head=head, **words)


def dinov2_vitl14_lc(
    *, pretrained: "_Pretrained" = None, layers: int | None = None, head: "_Head" = None, **words: _Any
) -> "_Classifier":
    """Logits of a linear head on `dinov2_vitl14`. `layers`: 1 or 4 blocks; `head`: the file of the head."""
    return _classifier("vit_large", registers=False, pretrained=pretrained, layers=layers, head=head, **words)


def dinov2_vitg14_lc(
    *, pretrained: "_Pretrained" = None, layers: int | None = None, head: "_Head" = None, **words: _Any
) -> "_Classifier":
    """Logits of a linear head on `dinov2_vitg14`. `layers`: 1 or 4 blocks; `head`: the file of the head."""
    return _classifier("vit_giant2", registers=False, pretrained=pretrained, layers=layers, head=head, **words)


def dinov2_vits14_reg_lc(
    *, pretrained: "_Pretrained" = None, layers: int | None = None, head: "_Head" = None, **words: _Any
) -> "_Classifier":
    """Logits of a linear head on `dinov2_vits14_reg`. `layers`: 1 or 4 blocks; `head`: the file of the head."""
    return _classifier("vit_small", registers=True, pretrained=pretrained, layers=layers, head=head, **words)


def dinov2_vitb14_reg_lc(
    *, pretrained: "_Pretrained" = None, layers: int | None = None, head: "_Head" = None, **words: _Any
) -> "_Classifier":
    """Logits of a linear head on `dinov2_vitb14_reg`. `layers`: 1 or 4 blocks; `head`: the file of the head."""
    return _classifier("vit_base", registers=True, pretrained=pretrained, layers=layers, head=head, **words)


def dinov2_vitl14_reg_lc(
    *, pretrained: "_Pretrained" = None, layers: int | None = None, head: "_Head" = None, **words: _Any
) -> "_Classifier":
    """Logits of a linear head on `dinov2_vitl14_reg`. `layers`: 1 or 4 blocks; `head`: the file of the head."""
    return _classifier("vit_large", registers=True, pretrained=pretrained, layers=layers, head=head, **words)


def dinov2_vitg14_reg_lc(
    *, pretrained: "_Pretrained" = None, layers: int | None = None, head: "_Head" = None, **words: _Any
) -> "_Classifier":
    """Logits of a linear head on `dinov2_vitg14_reg`. `layers`: 1 or 4 blocks; `head`: the file of the head."""
    return _classifier("vit_giant2", registers=True, pretrained=pretrained, layers=layers, head=head, **words)


def _backbone(arch: str, **words: _Any) -> "_Backbone":
    from dinov2.formats.torch_hub import hub_backbone

    return hub_backbone(arch, **words)


def _classifier(arch: str, **words: _Any) -> "_Classifier":
    from dinov2.formats.torch_hub import hub_classifier

    return hub_classifier(arch, **words)
