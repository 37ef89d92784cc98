"""The card beside files that were written: the source's, with what is particular to these files.

In: a `Source` and the words of the export. Out: a `BackboneCard`.
"""

from collections.abc import Iterable
from dataclasses import replace

from dinov2.backbone_card import BackboneCard
from dinov2.formats.source import Dtype, Source


def card_of_files(source: Source, *, heads: Iterable[str], dtype: Dtype, licence: str) -> BackboneCard:
    """`heads` are the names of those that were written."""
    said = {"network": source.network, "dtype": dtype} | ({"licence": licence} if licence else {})
    return replace(
        source.card,
        heads={name: source.card.heads[name] for name in heads},
        provenance=dict(source.card.provenance) | said,
    )
