"""Self-supervised pretraining of image encoders for chest radiographs.

`dinov2.Encoder.from_pretrained(NAME)` takes films and gives features; `dinov2.load_backbone(NAME)` gives the network
alone. Everything else has its own module. Nothing heavy is imported until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dinov2.encoder import Encoder
    from dinov2.formats.opening import load_backbone

__version__ = "0.1.0"
__all__ = ["Encoder", "__version__", "load_backbone"]
_HOMES = {"Encoder": "dinov2.encoder", "load_backbone": "dinov2.formats.opening"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dinov2' has no attribute {name!r}")
