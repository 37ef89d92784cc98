"""Public chest film datasets by name: their own tables become a manifest.

`LAYOUTS` says what each needs; `build` reads it. The ids are the datasets' own pseudonyms and are kept.
"""

from dinov2.layouts.build import LAYOUTS, Built, build
from dinov2.layouts.layout import Layout, TableFile

__all__ = ["LAYOUTS", "Built", "Layout", "TableFile", "build"]
