"""What holds for every network here: which requests are refused, and the order of parameters from input to output.

In: pictures and `Traits`; a network whose blocks are known. Out: ValueError or nothing; parts for layer-wise rates.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from dinov2.eval.backbones.backbone import Traits

Parts = list[list[tuple[str, nn.Parameter]]]


def check_request(pictures: Tensor, *, n: int, traits: Traits) -> None:
    """Raises ValueError where a network with these traits cannot give `n` blocks for these pictures."""
    if not 1 <= n <= traits.depth:
        raise ValueError(f"{traits.name}: {n} blocks were asked for; this backbone gives 1 to {traits.depth}.")
    rows, columns = pictures.shape[-2:]
    if traits.fixed_size and (rows, columns) != (traits.input_size, traits.input_size):
        raise ValueError(
            f"{traits.name}: takes pictures of {traits.input_size} x {traits.input_size} pixels only, "
            f"not {rows} x {columns}. Leave the size out, or give {traits.input_size}."
        )
    if not rows or not columns or rows % traits.size_step or columns % traits.size_step:
        raise ValueError(
            f"{traits.name}: pictures of {rows} x {columns} pixels; each side must be a multiple of {traits.size_step}."
        )


def ordered_parts(network: nn.Module, *, blocks: Sequence[nn.Module], norms: Sequence[nn.Module]) -> Parts:
    """Every parameter once: what is in neither `blocks` nor `norms` (embeddings), each block, the final norms.

    Names are those of `network.named_parameters()`. A network without a final norm has an empty last part.
    """
    place = {id(parameter): i for i, block in enumerate(blocks, start=1) for parameter in block.parameters()}
    place |= {id(parameter): len(blocks) + 1 for norm in norms for parameter in norm.parameters()}
    parts: Parts = [[] for _ in range(len(blocks) + 2)]
    for name, parameter in network.named_parameters():
        parts[place.get(id(parameter), 0)].append((name, parameter))
    return parts
