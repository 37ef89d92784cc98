"""`python -m dinov2`, so that `torchrun -m dinov2 train ...` works."""

import sys

from dinov2.cli import main

if __name__ == "__main__":
    sys.exit(main())
