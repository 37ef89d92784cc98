"""The EMA teacher is judged while it trains: probes, spread of its features, alarms."""

from dinov2.train.monitors.monitors import Monitors

__all__ = ["Monitors"]
