import argparse
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from dinov2.bench import step as bench
from dinov2.bench.case import PRESETS, Case, Form, config_of, num_patches, plain_form, random_views
from dinov2.bench.forms import build_form, flops_left_out, flops_per_picture
from dinov2.bench.plain_step import padded_patches
from dinov2.errors import ConfigError

CPU = torch.device("cpu")
SIZES = ["--arch=vit_small", "--batch-size=2", "--global-size=56", "--local-size=28", "--local-crops=2",
         "--prototypes=64", "--device=cpu"]  # fmt: skip
TINY = Case(batch_size=2, global_size=56, local_size=28, local_crops=2, prototypes=64)
EAGER = Form(precision="fp32", compile="never")


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args([*SIZES, "--steps=1", "--ceiling-seconds=0.05", "--compile=never", *words])


def test_the_plain_form_computes_the_same_losses_step_after_step() -> None:
    results = []
    for form in (EAGER, plain_form("fp32")):
        config = config_of(TINY, form, device=CPU)
        views, do = random_views(config, device=CPU), build_form(form, config, device=CPU)
        results.append([do(views, step) for step in range(2)])
    for one, other in zip(*results, strict=True):
        values = one.values
        assert float(values["dino_local_crops_loss"]) == pytest.approx(other["dino_local"], rel=1e-4)
        assert float(values["dino_global_crops_loss"]) == pytest.approx(other["dino_global"], rel=1e-4)
        assert 2 * float(values["ibot_loss"]) == pytest.approx(other["ibot"], rel=1e-4)
        assert 2 * float(values["koleo_loss"]) == pytest.approx(other["koleo"], rel=1e-4)


def test_the_padding_holds_the_masks_that_are_measured() -> None:
    config = config_of(TINY, EAGER, device=CPU)
    rows = padded_patches(num_patches=num_patches(config), num_crops=2 * TINY.batch_size)
    assert int(random_views(config, device=CPU).masks.sum()) <= rows


def test_the_recipe_of_the_model_card_costs_what_its_authors_paid_per_film() -> None:
    assert flops_per_picture(PRESETS["raddino"]) == pytest.approx(3.34e12, rel=0.002)


def test_what_ours_leaves_out_is_the_last_block_behind_attention_of_tokens_that_no_loss_reads() -> None:
    config = config_of(replace(TINY, batch_size=8), EAGER, device=CPU)
    masked = int(random_views(config, device=CPU).masks.sum())
    width = 384
    behind = 2 * width**2 + 2 * width * 4 * width * 2  # attention's second matrix, the feed-forward's two
    of_global, of_local = 16 * (1 + num_patches(config)), 8 * TINY.local_crops * (1 + (TINY.local_size // 14) ** 2)
    teacher, student = of_global - 16 - masked, of_global + of_local - 16 - 8 * TINY.local_crops - masked
    assert flops_left_out(TINY) == pytest.approx((teacher + 3 * student) * behind / 8)


def test_every_form_has_a_row_with_its_share_or_why_it_cannot_run_and_the_time_of_a_step_is_drawn(tmp_path) -> None:
    picture = tmp_path / "new" / "step.png"
    result = bench.run(
        arguments(
            "--precision=fp32",
            "--against=plain",
            "--attention",
            "auto",
            "xformers",
            "--no-memory",
            f"--profile={picture}",
        )
    )
    ours, unable, plain = result["rows"]
    assert unable["seconds_per_step"] is None
    assert "xformers" in unable["reason"]
    assert (ours["form"], plain["form"]) == ("ours", "plain")
    assert ours["speed_up"] == pytest.approx(plain["seconds_per_step"] / ours["seconds_per_step"])
    assert plain["speed_up"] is None
    assert 0 < ours["share_of_matrix_rate"] <= min(1.5, ours["share_of_torch_rate"])
    assert ours["flops_per_step"] == 2 * result["flops_per_picture"] > 1e9
    assert result["ceilings"]["copy_bytes_per_second"] > 1e8
    assert {"torch", "python", "opencv", "date", "cpu", "cores", "memory_bytes"} <= result["machine"].keys()
    assert bench.table(result).row_count == 3
    assert json.loads(json.dumps(result))["settings"]["prototypes"] == 64
    before, after = result["profiles"]
    assert before["label"].startswith("before: plain")
    for profile in (before, after):
        assert sum(profile["kinds"].values()) == pytest.approx(profile["seconds"])
        assert all(profile["kinds"][kind] > 0 for kind in ("matrix products", "attention", "norms", "GELU"))
        assert profile["kinds"]["optimiser, clipping, teacher"] > 0
    with Image.open(picture) as drawn:
        assert drawn.width == 1400
        assert len(drawn.convert("RGB").getcolors(1 << 20)) > 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps=0"], "--steps 0: expected 1 or more"),
        (["--batch-size=1"], "--batch-size 1: expected 2 or more"),
        (["--global-size=50"], "patch"),
    ],
)
def test_sizes_that_cannot_be_measured_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench.run(arguments("--no-memory", *words))
