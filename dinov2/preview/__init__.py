"""Pages to look at before hours are spent: crops, masks, and what a backbone sees.

In: a `BatchMaker`, or a backbone and films. Out: one HTML file or one PNG.
"""

from dinov2.preview.augmentation import augmentation_page
from dinov2.preview.feature_page import feature_page
from dinov2.preview.feature_sheet import feature_sheet
from dinov2.preview.features import FeatureMaps, choose_rows, feature_maps
from dinov2.preview.mask_counts import MaskCounts, count_masks
from dinov2.preview.masks import mask_page, mask_sheet

__all__ = [
    "FeatureMaps",
    "MaskCounts",
    "augmentation_page",
    "choose_rows",
    "count_masks",
    "feature_maps",
    "feature_page",
    "feature_sheet",
    "mask_page",
    "mask_sheet",
]
