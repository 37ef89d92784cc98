"""Self-supervised pretraining of image encoders for chest radiographs.

`dinov2.load_backbone(FOLDER)` gives the backbone of an exported folder; everything else has its own module. Nothing
heavy is imported until it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dinov2.checkpoint.export import load_backbone

__version__ = "0.1.0"
__all__ = ["__version__", "load_backbone"]


def __getattr__(name: str) -> Any:
    if name == "load_backbone":
        from dinov2.checkpoint.export import load_backbone

        return load_backbone
    raise AttributeError(f"module 'dinov2' has no attribute {name!r}")
