"""Pictures as a backbone takes them: prepared, in batches."""

from dinov2.eval.pictures.batches import Augment, PictureBatch, batches
from dinov2.eval.pictures.preparation import FITS, Fit, Placement, Preparation, preparation_for

__all__ = ["FITS", "Augment", "Fit", "PictureBatch", "Placement", "Preparation", "batches", "preparation_for"]
