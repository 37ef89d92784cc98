"""The parameters of student and teacher, from the dimensions alone.

In: `Dimensions`. Out: the `Unit`s that are gathered together, with the shapes of their parameters: each block of a
backbone, what else the backbone has, each head. A test holds them against the networks themselves.
"""

from collections.abc import Iterator
from itertools import pairwise
from math import prod

from dinov2.forecast.dimensions import Dimensions, Head
from dinov2.forecast.rehearsal import Unit
from dinov2.ssl.precision import SIDES

Shape = tuple[int, ...]


def units_of(dims: Dimensions) -> tuple[Unit, ...]:
    """Of both sides, in the order in which they are gathered; a teacher that nobody asks is there all the same."""
    return tuple(
        Unit(number=number, side=side, part=part, block=block, shapes=shapes)
        for number, (side, part, block, shapes) in enumerate(_units(dims))
    )


def num_parameters(unit: Unit) -> int:
    """Entries of a unit's parameters."""
    return sum(prod(shape) for shape in unit.shapes)


def block_shapes(dims: Dimensions) -> tuple[Shape, ...]:
    """`12 D^2 + 13 D` entries where F = 4 D and everything has a bias, with LayerScale `2 D` more."""
    width, hidden = dims.width, dims.hidden
    of_qkv, of_output, of_ffn = dims.biases
    norm = ((width,), (width,))
    scale = ((width,),) if dims.layer_scale else ()
    attention = (*_linear(width, 3 * width, bias=of_qkv), *_linear(width, width, bias=of_output))
    inner = (2 if dims.gated else 1) * hidden
    ffn = (*_linear(width, inner, bias=of_ffn), *_linear(hidden, width, bias=of_ffn)) if hidden else ()
    return (*norm, *attention, *scale, *norm, *ffn, *scale)


def _units(dims: Dimensions) -> Iterator[tuple[str, str, int | None, tuple[Shape, ...]]]:
    for side in SIDES:
        yield side, "backbone", None, _around_the_blocks(dims)
        for block in range(dims.depth):
            yield side, "backbone", block, block_shapes(dims)
        for head in dims.heads:
            yield side, head.name, None, _head_shapes(head)


def _around_the_blocks(dims: Dimensions) -> tuple[Shape, ...]:
    """CLS, positions, registers, mask token; patch map; final norm."""
    width = dims.width
    registers = ((1, dims.registers, width),) if dims.registers else ()
    tokens = ((1, 1, width), (1, dims.positions, width), *registers, (1, width))
    patch_map = ((width, dims.channels, dims.patch_size, dims.patch_size), (width,))
    return (*tokens, *patch_map, (width,), (width,))


def _head_shapes(head: Head) -> tuple[Shape, ...]:
    layers = tuple(shape for widths in pairwise(head.widths) for shape in _linear(*widths, bias=True))
    return (*layers, (head.prototypes, 1), (head.prototypes, head.widths[-1]))


def _linear(inputs: int, outputs: int, *, bias: bool) -> tuple[Shape, ...]:
    return ((outputs, inputs), (outputs,)) if bias else ((outputs, inputs),)
