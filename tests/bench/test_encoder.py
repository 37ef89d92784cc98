import argparse
import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dinov2.bench import encoder as bench
from dinov2.bench.encoder_import import measure_imports
from dinov2.bench.encoder_pair import Pair, flops_per_picture, open_pair, write_pair
from dinov2.bench.preprocess import draw_film
from dinov2.errors import ConfigError, Dinov2Error

CPU = torch.device("cpu")
SMALL = ["--arch=vit_small", "--size=56", "--device=cpu", "--repeats=1", "--ceiling-seconds=0.05"]


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args([*SMALL, *words])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = write_pair(tmp_path_factory.mktemp("pair"), arch="vit_small", size=56)
    return open_pair(folder, device=CPU, dtype=torch.float32)


def test_both_sides_compute_the_same_features(pair: Pair) -> None:
    compared = bench.compare_encoding(pair, torch.randn(2, 3, 56, 56), repeats=1)
    assert compared["apart"] < 1e-4


def test_both_sides_make_the_same_pixels_of_a_film_grey_or_coloured(pair: Pair) -> None:
    film = Image.fromarray(np.rint(255 * draw_film((240, 180), seed=0)).astype(np.uint8))
    for picture in (film, film.convert("RGB")):
        assert bench.compare_preprocessing(pair, picture, repeats=1)["apart"] <= 1.01


def test_a_difference_between_the_sides_would_be_seen(pair: Pair) -> None:
    changed = copy.deepcopy(pair.model)
    changed.layernorm.bias.data += 0.5
    mixed = Pair(ours=pair.ours, model=changed, processor=pair.processor)
    assert bench.compare_encoding(mixed, torch.randn(1, 3, 56, 56), repeats=1)["apart"] == pytest.approx(0.5, abs=1e-4)


def test_flops_are_those_of_a_forward_pass() -> None:
    depth, width, tokens, patches = 12, 384, 17, 16
    linear = 2 * 12 * width**2 * tokens * depth
    attention = 2 * 2 * tokens**2 * width * depth
    embedding = 2 * 3 * 14**2 * width * patches
    assert flops_per_picture("vit_small", size=56) == linear + attention + embedding


def test_every_encoding_and_preprocessing_has_a_row() -> None:
    words = ("--only", "encode", "preprocess", "--batch", "1", "2", "--precision", "fp32", "bf16")
    result = bench.run(arguments(*words, "--height=90", "--width=70"))
    assert [(row["precision"], row["batch"]) for row in result["encode"]] == [
        *(("fp32", 1), ("fp32", 2)),
        *(("bf16", 1), ("bf16", 2)),
    ]
    for row in result["encode"]:
        assert row["ratio"] == pytest.approx(row["theirs_seconds"] / row["ours_seconds"])
        assert 0 < row["share_of_matrix_rate"] < 1.5
    assert [row["film"] for row in result["preprocess"]] == ["grey", "RGB"]
    assert json.loads(json.dumps(result))["settings"]["film"] == [90, 70]
    assert bench.table(result).row_count == 4 + 2


def test_importing_alone_says_whether_torch_came_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "STATEMENTS", ("import dinov2", "import torch.version, dinov2"))
    result = bench.run(arguments("--only", "import"))
    assert [row["torch"] for row in result["import"]] == [False, True]
    assert all(row["seconds"] > 0 for row in result["import"])
    assert not result["encode"]
    assert bench.table(result).row_count == 2


def test_a_library_that_is_not_here_has_no_row_but_ours_must_be() -> None:
    assert measure_imports(["import no_such_library"], repeats=1) == []
    with pytest.raises(Dinov2Error, match="division by zero"):
        measure_imports(["import dinov2; 1 / 0"], repeats=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size=50"], "--size 50: no multiple of the patch, 14. Give 42 or 56"),
        (["--repeats=0"], "--repeats 0: expected 1 or more"),
        (["--batch", "4", "0"], "--batch 0: expected 1 or more"),
        (["--precision", "fp16"], "--precision fp16: measured on a GPU only"),
        (["--width=40"], "a film has at least --size 56"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench.run(arguments(*words))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no GPU here"):
        bench.run(arguments("--device=cuda"))
