"""Films in, features out: the one class that users of a backbone need.

In: a name of weights; pictures or films. Out: tokens.
"""

from dinov2.encoder.encoder import Encoder
from dinov2.encoder.rows import EncodedBatch

__all__ = ["EncodedBatch", "Encoder"]
