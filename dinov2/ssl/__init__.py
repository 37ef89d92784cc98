"""Student, teacher and what is compared between them."""

from dinov2.ssl.networks import Networks, build_networks
from dinov2.ssl.objective import Losses, Objective, build_objective

__all__ = ["Losses", "Networks", "Objective", "build_networks", "build_objective"]
