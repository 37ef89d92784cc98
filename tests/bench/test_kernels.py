import argparse

import pytest
import torch

from dinov2.bench import kernels as bench
from dinov2.bench.case import Case
from dinov2.bench.kernel_trials import SUBJECTS, trials
from dinov2.layers.kernels import ATTENTION_NAMES

CPU = torch.device("cpu")
SIZES = ["--batch-size=2", "--global-size=56", "--local-size=28", "--local-crops=2", "--device=cpu"]
TINY = Case(batch_size=2, global_size=56, local_size=28, local_crops=2, prototypes=512)


def measured(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.run(parser.parse_args([*SIZES, "--seconds=0.001", "--ceiling-seconds=0.05", *words]))


def test_every_piece_is_measured_against_what_bounds_it() -> None:
    result = measured("--prototypes=64", "--precision=fp32")
    assert {row["subject"] for row in result["rows"]} == set(SUBJECTS)
    for row in result["rows"]:
        if row["seconds"] is not None:
            assert row["share_of_ceiling"] > 0
            assert bool(row["flops"]) != bool(row["bytes"])
    shown = bench.table(result)
    assert shown.row_count == len(result["rows"])


def test_attention_kernels_that_cannot_run_here_are_listed_with_the_reason() -> None:
    result = measured("--only=attention", "--prototypes=64")
    kernels = {row["kernel"]: row for row in result["rows"]}
    assert set(kernels) == set(ATTENTION_NAMES)
    assert kernels["sdpa"]["seconds"] > 0
    for name in ("xformers", "varlen"):
        assert kernels[name]["seconds"] is None
        assert f"runtime.attention={name}" in kernels[name]["reason"]


def test_memory_counts_what_a_kernel_makes_and_not_what_it_is_given() -> None:
    result = measured("--only=sinkhorn", "--prototypes=512", "--precision=fp32")
    held = {row["kernel"]: row["peak_bytes"] for row in result["rows"]}
    rows = int(result["rows"][0]["shape"].split()[0])
    table = 4 * 512 * rows
    assert held["plain, written out"] >= 2 * table
    result = measured("--only=teacher")
    assert all(row["peak_bytes"] < 2**20 for row in result["rows"]), "averages are made in place"


@pytest.mark.parametrize("subject", ["prototypes", "sinkhorn", "adamw"])
def test_compiled_kernels_are_tried_only_where_asked_for(subject: str) -> None:
    names = [t.kernel for t in trials(subject, TINY, dtype=torch.float32, device=CPU, compiled=False)]
    assert not any("compiled" in name for name in names)
    assert len(names) >= 2
