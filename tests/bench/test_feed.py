import argparse

import pytest

from dinov2.bench import feed as bench
from dinov2.errors import ConfigError, TrainingError

SIZES = ["--batch-size=2", "--global-size=28", "--local-size=14", "--local-crops=1", "--prototypes=32", "--device=cpu"]


def measured(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.run(parser.parse_args([*SIZES, "--precision=fp32", "--compile=never", "--workers=0", *words]))


def test_more_steps_left_out_than_made_are_refused() -> None:
    with pytest.raises(ConfigError, match="give more steps than are left out"):
        measured("--steps=3", "--warm-up=3")


def test_a_training_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(TrainingError, match=r"exit code 2:\n(.|\n)*xformers"):
        measured("--steps=2", "--warm-up=1", "--attention=xformers")
