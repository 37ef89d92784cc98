"""Which parameters of a backbone learn: all, low-rank additions to its matrices (LoRA), its biases (BitFit), or none.

In: a `Backbone` and a mode. Out: the same network, prepared; later what was learnt, by name, and back into a network.

LoRA adds to a frozen matrix W [out, in] the product (alpha / rank) * up [out, rank] @ down [rank, in]
(Hu et al., arXiv 2106.09685). `up` starts at zero, so step 0 is the frozen network. It is added to the matrix itself
and not beside its module, so it holds wherever the matrix is used, also where a block multiplies it with its LayerScale
first. Dropout on the input of the addition is not possible in this form, and there is none. Biases of adapted layers
stay frozen. BitFit: Ben Zaken et al., arXiv 2106.10199.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dinov2.eval.backbones.backbone import Backbone

Mode = Literal["full", "lora", "bitfit", "frozen"]
MODES: tuple[Mode, ...] = ("full", "lora", "bitfit", "frozen")
RANK, ALPHA = 48, 16.0

# Last words of the names of layers that LoRA is for: queries, keys, values and the feed-forward branch.
ATTENTION_LAYERS = frozenset({"qkv", "query", "key", "value", "q_proj", "k_proj", "v_proj"})
FFN_LAYERS = frozenset(
    {
        *("fc1", "fc2", "w12", "w3"),  # ours, timm, CLIP
        *("weights_in", "weights_out"),  # gated DINOv2 of transformers
        *("gate_proj", "up_proj", "down_proj"),  # gated DINOv3
        *("lin1", "lin2"),  # SAM
        *("c_fc", "c_proj"),  # open_clip
    }
)
FFN_PATHS = ("intermediate.dense", "output.dense")  # ViT, MAE, MSN of transformers
NOT_FFN = "attention.output.dense"
JOINT_WEIGHT = "in_proj_weight"  # of nn.MultiheadAttention


class LowRank(nn.Module):
    """W -> W + scale * up @ down, for a weight of torch's parametrization."""

    def __init__(self, weight: Tensor, *, rank: int, alpha: float) -> None:
        super().__init__()
        num_out, num_in = weight.shape
        self.scale = alpha / rank
        self.down = nn.Parameter(weight.new_empty(rank, num_in))
        self.up = nn.Parameter(weight.new_zeros(num_out, rank))
        self.restart()

    def restart(self) -> None:
        """The addition is zero again, and `down` is drawn anew."""
        with torch.no_grad():
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
            self.up.zero_()

    def forward(self, weight: Tensor) -> Tensor:
        """[out, in] -> [out, in]"""
        return torch.addmm(weight, self.up, self.down, alpha=self.scale)


def prepare(backbone: Backbone, *, mode: Mode, rank: int = RANK, alpha: float = ALPHA) -> None:
    """Sets which parameters require a gradient; with "lora" the additions are made, or set to zero where they exist.

    Raises:
        ValueError: the network has no layer that this mode is for; the message names the mode.
    """
    if mode == "lora":
        if not _additions(backbone):
            _add_low_rank(backbone, rank=rank, alpha=alpha)
        for addition in _additions(backbone):
            addition.restart()
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(_learns(name, mode=mode))
    if mode == "bitfit" and not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise ValueError(f"bitfit: {backbone.traits.name} has no biases. Take full, lora or frozen.")


def set_training(backbone: Backbone, *, mode: Mode) -> None:
    """Train mode, but for a frozen network; batch norms keep their statistics unless everything learns."""
    backbone.train(mode != "frozen")
    if mode != "full":
        for module in backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def learnt_state(backbone: Backbone, *, mode: Mode) -> dict[str, Tensor]:
    """A copy on the CPU of whatever `mode` can change: parameters, and with "full" buffers too."""
    changing = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    if mode == "full":
        changing |= {name for name, _ in backbone.named_buffers()}
    # .copy_ into new memory: .to("cpu") of what lies there already would be the same tensor
    return {
        name: torch.empty_like(value, device="cpu").copy_(value.detach())
        for name, value in backbone.state_dict().items()
        if name in changing
    }


def restore(backbone: Backbone, state: Mapping[str, Tensor]) -> None:
    """What `learnt_state` gave, back into the network.  Raises ValueError for a name that it does not have."""
    _, unexpected = backbone.load_state_dict(dict(state), strict=False)
    if unexpected:
        raise ValueError(f"{backbone.traits.name} has no {', '.join(unexpected[:5])}: the state of another network.")


def merge(backbone: Backbone) -> None:
    """Low-rank additions become part of the matrices, and the network has its first names again."""
    for module, tensor_name in list(_adapted(backbone)):
        parametrize.remove_parametrizations(module, tensor_name, leave_parametrized=True)


def count_parameters(backbone: Backbone) -> tuple[int, int]:
    """(that learn, of the network without additions)."""
    learning = sum(parameter.numel() for parameter in backbone.parameters() if parameter.requires_grad)
    added = sum(part.numel() for addition in _additions(backbone) for part in addition.parameters())
    return learning, sum(parameter.numel() for parameter in backbone.parameters()) - added


def _learns(name: str, *, mode: Mode) -> bool:
    if mode == "full":
        return True
    if mode == "lora":
        return ".parametrizations." in name and name.endswith((".up", ".down"))
    return mode == "bitfit" and (name.endswith(".bias") or name.endswith("in_proj_bias"))


def _add_low_rank(backbone: Backbone, *, rank: int, alpha: float) -> None:
    targets = list(_targets(backbone))
    if not targets:
        raise ValueError(f"lora: {backbone.traits.name} has no attention or feed-forward matrices that are known here.")
    for module, tensor_name in targets:
        weight = getattr(module, tensor_name)
        parametrize.register_parametrization(module, tensor_name, LowRank(weight, rank=rank, alpha=alpha))


def _targets(backbone: Backbone) -> Iterator[tuple[nn.Module, str]]:
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Linear) and _is_target(name):
            yield module, "weight"
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            yield module, JOINT_WEIGHT


def _is_target(name: str) -> bool:
    if name.rpartition(".")[2] in ATTENTION_LAYERS | FFN_LAYERS:
        return True
    return name.endswith(FFN_PATHS) and not name.endswith(NOT_FFN)


def _adapted(backbone: Backbone) -> Iterator[tuple[nn.Module, str]]:
    for module in backbone.modules():
        if not parametrize.is_parametrized(module):
            continue
        for tensor_name, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
            if any(isinstance(part, LowRank) for part in chain):
                yield module, tensor_name


def _additions(backbone: Backbone) -> list[LowRank]:
    return [module for module in backbone.modules() if isinstance(module, LowRank)]
