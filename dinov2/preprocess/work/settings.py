"""Whether a conversion's settings go together; what each is alone, the loader has checked.

In: a `PreprocessConfig`. Out: the same one, or a ConfigError that lists every fault.
"""

from dinov2.config.preprocess import PreprocessConfig
from dinov2.errors import ConfigError
from dinov2.preprocess.quality.filters import check_flags

MOST_NEAR_BITS = 63
LEAST_MEMORY_MB = 512  # what the libraries and one ordinary film take


def check(config: PreprocessConfig) -> PreprocessConfig:
    """The configuration, if it can be run.  Raises ConfigError with all faults together."""
    low, high = config.intensity.percentiles
    rules = (
        (
            config.resample.short_side >= 1,
            f"resample.short_side = {config.resample.short_side}: give at least 1 pixel.",
        ),
        (
            0 <= low < high <= 100,
            f"intensity.percentiles = [{low:g}, {high:g}]: give two percentages in order, such as [0.5, 99.5].",
        ),
        (
            config.filters.min_side_px >= 2,
            f"filters.min_side_px = {config.filters.min_side_px}: give at least 2; a spline needs two pixels.",
        ),
        (
            config.filters.max_aspect >= 1,
            f"filters.max_aspect = {config.filters.max_aspect:g}: long side over short side is never below 1.",
        ),
        (
            0 <= config.quality.near_duplicate_bits <= MOST_NEAR_BITS,
            f"quality.near_duplicate_bits = {config.quality.near_duplicate_bits}: give 0 to {MOST_NEAR_BITS} of the "
            "256 bits of two hashes.",
        ),
        (
            config.limits.seconds_per_file > 0,
            f"limits.seconds_per_file = {config.limits.seconds_per_file:g}: give more than 0 seconds.",
        ),
        (
            config.limits.memory_mb == 0 or config.limits.memory_mb >= LEAST_MEMORY_MB,
            f"limits.memory_mb = {config.limits.memory_mb}: give at least {LEAST_MEMORY_MB}, or 0 for no limit.",
        ),
        (
            0 <= config.max_rejected_share <= 1,
            f"max_rejected_share = {config.max_rejected_share:g}: give a share from 0 to 1.",
        ),
    )
    faults = tuple(text for holds, text in rules if not holds) + _flag_faults(config)
    if faults:
        raise ConfigError("the settings cannot be run:\n" + "\n".join(f"  - {text}" for text in faults), faults=faults)
    return config


def _flag_faults(config: PreprocessConfig) -> tuple[str, ...]:
    try:
        check_flags(config.filters.flags)
    except ConfigError as error:
        return error.faults
    return ()
