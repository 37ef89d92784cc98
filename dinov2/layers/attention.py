"""Multi-head self-attention, and the one place where its kernel is chosen. Home of xformers.

In: tokens [B, N, D]. Out: tokens [B, N, D].

Legend: B pictures, N tokens, D width, H heads, d = D / H width of a head.
"""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dinov2.errors import ConfigError

AttentionKernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""queries, keys, values, each [B, N, H, d] -> [B, N, H, d]; scale 1 / sqrt(d), no dropout, no bias."""

ATTENTION_NAMES = ("auto", "sdpa", "explicit", "xformers")
EXPLICIT_UP_TO_TOKENS = 640  # on a CPU in half precision; longer sequences are faster in torch's fused kernel


def sdpa_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Torch's own fused attention; on every device.  3 x [B, N, H, d] -> [B, N, H, d]"""
    attended = scaled_dot_product_attention(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))
    return attended.transpose(1, 2)


def explicit_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Two products around a softmax, with the [B, H, N, N] matrix in memory.  3 x [B, N, H, d] -> [B, N, H, d]"""
    scale = queries.shape[-1] ** -0.5
    scores = (queries.transpose(1, 2) * scale) @ keys.permute(0, 2, 3, 1)  # [B, H, N, N]
    weights = torch.softmax(scores, dim=-1)  # sums in float32 inside; only its half-precision result is kept
    return (weights @ values.transpose(1, 2)).transpose(1, 2)


def auto_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """`explicit_attention` where it was measured to be faster (`dinov2 bench step`), else `sdpa_attention`.

    On a CPU in half precision the fused kernel's backward pass is 2 to 7 times slower than two matrix products for
    sequences of a few hundred tokens.
    """
    half = queries.dtype in (torch.bfloat16, torch.float16)
    if queries.device.type == "cpu" and half and queries.shape[1] <= EXPLICIT_UP_TO_TOKENS:
        return explicit_attention(queries, keys, values)
    return sdpa_attention(queries, keys, values)


def choose_attention(name: str, device: torch.device | None = None) -> AttentionKernel:
    """The attention kernel called `name`: "sdpa", "explicit", "xformers", or "auto", which is one of the first two.

    xformers is imported here, when it is asked for by name, and nowhere else. `device` is where the kernel will run;
    None leaves the question to the first call.

    Raises:
        ConfigError: the name is unknown, xformers is not installed, or it is asked to run on a CPU.
    """
    own = {"auto": auto_attention, "sdpa": sdpa_attention, "explicit": explicit_attention}
    if name in own:
        return own[name]
    if name == "xformers":
        if device is not None:
            _refuse_cpu(device)
        return _xformers_attention()
    raise ConfigError(f"runtime.attention is {name!r}; expected one of {', '.join(ATTENTION_NAMES)}.")


def _refuse_cpu(device: torch.device) -> None:
    if device.type == "cpu":
        raise ConfigError("runtime.attention=xformers has no kernel for the CPU; set runtime.attention=sdpa.")


def _xformers_attention() -> AttentionKernel:
    try:
        ops = importlib.import_module("xformers.ops")
    except ImportError as error:
        raise ConfigError(
            f"runtime.attention=xformers, but xformers cannot be imported ({error}). "
            "Install it with `pip install 'dinov2[gpu]'`, or set runtime.attention=sdpa."
        ) from error

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        _refuse_cpu(queries.device)
        attended: Tensor = ops.memory_efficient_attention(queries, keys, values)
        return attended

    return attend


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values (rows in that order) and one for the output."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        kernel: AttentionKernel = sdpa_attention,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"Attention: width {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.kernel = kernel
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]"""
        batch, num_tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, num_tokens, 3, self.num_heads, dim // self.num_heads)
        queries, keys, values = qkv.unbind(dim=2)  # 3 x [B, N, H, d]
        attended = self.kernel(queries, keys, values)
        projected: Tensor = self.proj(attended.reshape(batch, num_tokens, dim))
        return projected


def use_attention(module: nn.Module, name: str) -> None:
    """Give every attention layer below `module` the kernel called `name`."""
    kernel = choose_attention(name)
    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.kernel = kernel
