"""The door out: what a user of an exported backbone must know, as `backbone_card.json`.

In: plain values from the run. Out: a file, and back.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dinov2.errors import WeightsError

CARD_NAME = "backbone_card.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class BackboneCard:
    """`architecture` holds the arguments of the architecture's function, so the card alone builds the backbone."""

    arch: str
    architecture: dict[str, Any]
    resolution_px: int  # side of the global crops it was trained on
    short_side_px: int | None = None  # of the picture that the square of `resolution_px` is cut from; None: the same
    in_chans: int
    mean: tuple[float, ...]  # of pictures in 0..1
    std: tuple[float, ...]
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)  # head name -> arguments of DINOHead
    step: int
    # The flat settings of `dinov2 preprocess` that the training pictures were made with; {} where they are not known.
    preprocessing: dict[str, Any] = field(default_factory=dict)
    # Versions, the run's configuration, and what the run knew: `data` (pictures, by_dataset, by_view, by_split,
    # patients), `hardware` (devices, world_size), `wall_seconds`, `scores` of `scores_step`, `pictures_seen`.
    provenance: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def write(self, folder: Path) -> Path:
        """Writes `backbone_card.json` into `folder`."""
        path = folder / CARD_NAME
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path


def read_card(folder: Path) -> BackboneCard:
    """The card of an exported folder.  Raises WeightsError where it is absent or not one of ours."""
    path = folder / CARD_NAME
    try:
        values = json.loads(path.read_text())
        values["mean"], values["std"] = tuple(values["mean"]), tuple(values["std"])
        card = BackboneCard(**values)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{folder}: no {CARD_NAME} here. Give a folder that `dinov2 export` or `dinov2 train` wrote."
        ) from error
    except (json.JSONDecodeError, TypeError, KeyError, OSError) as error:
        raise WeightsError(f"{path}: not a card of this package ({error}).") from error
    if card.format != FORMAT:
        raise WeightsError(f"{path}: written in format {card.format}; this version reads format {FORMAT}.")
    return card
