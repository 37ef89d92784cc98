import argparse

import pytest

from dinov2.bench import memory as bench
from dinov2.errors import ConfigError

SIZES = [
    "--global-size=56",
    "--local-size=28",
    "--local-crops=2",
    "--prototypes=64",
    "--device=cpu",
    "--precision=fp32",
]


def measured(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.run(parser.parse_args([*SIZES, *words]))


def test_more_pictures_take_more_and_the_largest_batch_is_tried() -> None:
    few_gib = 1.2
    result = measured("--batch-sizes", "2", "16", "--checkpointing=none", "--largest", f"--limit-gib={few_gib}")
    small, large = result["rows"]
    assert small["before_bytes"] + 16 * 22e6 < small["peak_bytes"]  # weights twice, and two means of the optimiser
    assert small["peak_bytes"] < large["peak_bytes"] < few_gib * 2**30
    (largest,) = result["largest"]
    assert largest["pictures"] > 16
    assert large["peak_bytes"] < largest["peak_bytes"] < 1.2 * few_gib * 2**30
    assert largest["confirmed"] == (largest["peak_bytes"] <= few_gib * 2**30)
    assert bench.table(result).row_count == 2


def test_the_ratio_is_to_the_plain_form_at_the_same_batch() -> None:
    rows = [
        {"form": form, "precision": "bf16", "batch_size": size, "peak_bytes": peak}
        for form, size, peak in [("plain", 2, 8.0), ("plain", 4, None), ("ours", 2, 6.0), ("ours", 4, 7.0)]
    ]
    bench.add_ratios(rows, to="peak_bytes", alike=("precision", "batch_size"))
    assert [row["ratio_to_plain"] for row in rows] == [None, None, 0.75, None]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-sizes=1"], "--batch-sizes 1: expected 2 or more"),
        (["--limit-gib=0"], "--limit-gib 0"),
        (["--batch-sizes=2", "--largest"], "give two to --batch-sizes"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measured(*words)
