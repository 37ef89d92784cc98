"""Student, teacher and what is compared between them."""

from dinov2.ssl.networks import Networks, build_networks, build_teacher
from dinov2.ssl.objective import Formats, Losses, Objective, build_objective

__all__ = ["Formats", "Losses", "Networks", "Objective", "build_networks", "build_objective", "build_teacher"]
