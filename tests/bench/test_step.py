import argparse

import pytest
import torch

from dinov2.bench import step as bench
from dinov2.bench.plain_step import padded_patches

CPU = torch.device("cpu")
SMALL = ["--arch", "vit_small", "--batch-size", "2", "--global-size", "56", "--local-size", "28", "--local-crops", "2",
         "--prototypes", "64", "--device", "cpu", "--steps", "1"]  # fmt: skip


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args([*SMALL, *words])


def test_the_plain_form_computes_the_same_losses_step_after_step() -> None:
    config = bench.bench_config(arguments(), precision="fp32", device=CPU)
    views = bench.random_views(config, device=CPU)
    ours, plain = (bench.build_form(form, config, device=CPU) for form in bench.FORMS)
    for step in range(3):
        one, other = ours(views, step).values, plain(views, step)
        assert float(one["dino_local_crops_loss"]) == pytest.approx(other["dino_local"], rel=1e-4)
        assert float(one["dino_global_crops_loss"]) == pytest.approx(other["dino_global"], rel=1e-4)
        assert 2 * float(one["ibot_loss"]) == pytest.approx(other["ibot"], rel=1e-4)
        assert 2 * float(one["koleo_loss"]) == pytest.approx(other["koleo"], rel=1e-4)


def test_the_padding_holds_the_masks_that_are_measured() -> None:
    config = bench.bench_config(arguments(), precision="fp32", device=CPU)
    views = bench.random_views(config, device=CPU)
    rows = padded_patches(config.ibot.mask_ratio_min_max, num_patches=16, num_masked_crops=2)
    assert int(views.masks.sum()) <= rows


def test_a_measurement_has_a_row_per_format_and_form_with_its_share_and_memory() -> None:
    result = bench.run(arguments("--precision", "fp32"))
    ours, plain = result["rows"]
    assert (ours["form"], plain["form"]) == ("ours", "plain")
    assert ours["speed_up"] == pytest.approx(plain["seconds_per_step"] / ours["seconds_per_step"])
    assert 0 < ours["share_of_matrix_rate"] <= 1.5
    assert ours["peak_memory_bytes"] > 2**20
    assert ours["flops_per_step"] > 1e9
    assert bench.table(result).row_count == 2
