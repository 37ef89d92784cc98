"""Files per rank of the public trainer's checkpoints, made by real FSDP in real processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.models import DinoVisionTransformer, read_weights
from dinov2.models.shard_layout import by_unit
from dinov2.models.vision_transformer import vit_small
from tests.models.sharded_run import ARCHITECTURE, CASES, HEAD, ITERATION, Case

ROOT = Path(__file__).parents[2]
CONFIG = f"""
student:
  arch: vit_custom
  embed_dim: {ARCHITECTURE["embed_dim"]}
  depth: {ARCHITECTURE["depth"]}
  num_heads: {ARCHITECTURE["num_heads"]}
  patch_size: 14
  layerscale: 1.0
  num_register_tokens: {ARCHITECTURE["num_register_tokens"]}
  block_chunks: 2
crops: {{global_crops_size: {ARCHITECTURE["img_size"]}, local_crops_size: 14}}
dino: &head
  head_n_prototypes: {HEAD["out_dim"]}
  head_hidden_dim: {HEAD["hidden_dim"]}
  head_bottleneck_dim: {HEAD["bottleneck_dim"]}
ibot:
  separate_head: true
  head_n_prototypes: {HEAD["out_dim"]}
  head_hidden_dim: {HEAD["hidden_dim"]}
  head_bottleneck_dim: {HEAD["bottleneck_dim"]}
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.sharded_run", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def case_of(saved: Path, case: Case, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A copy that a test may change, and what was sharded."""
    folder = tmp_path / "run"
    shutil.copytree(saved / case.name, folder)
    if not case.original:
        (folder / "config.yaml").write_text(CONFIG)
    whole = torch.load(folder / "whole.pt", weights_only=True)
    (folder / "whole.pt").unlink()
    return folder, whole


def expected(whole: dict[str, Tensor], *, network: str, part: str) -> dict[str, Tensor]:
    """Flat names: `blocks.<chunk>.<index>` counts the index over all chunks."""
    found = {}
    for name, tensor in whole.items():
        if name.startswith(f"{network}.{part}."):
            words = name.removeprefix(f"{network}.{part}.").split(".")
            if words[0] == "blocks" and words[2].isdigit():
                words.pop(1)
            found[".".join(words)] = tensor
    return found


@pytest.mark.parametrize("network", ["teacher", "student"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_merged_files_are_bit_for_bit_what_was_sharded(saved: Path, tmp_path: Path, case: Case, network: str) -> None:
    folder, whole = case_of(saved, case, tmp_path)
    weights = read_weights(folder, which=network)
    assert set(weights.parts) == {"backbone", "dino_head", "ibot_head"}
    for part, state in weights.parts.items():
        wanted = expected(whole, network=network, part=part)
        assert state.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert torch.equal(state[name], tensor), f"{part}: {name}"
    assert torch.equal(weights.centers["dino_center"], whole["dino_loss.center"].flatten())
    assert torch.equal(weights.centers["ibot_center"], whole["ibot_patch_loss.center"].flatten())
    DinoVisionTransformer(**ARCHITECTURE).load_state_dict(weights.part("backbone"), strict=True)


def test_one_file_stands_for_all_and_its_headers_for_its_values(saved: Path, tmp_path: Path) -> None:
    folder, _ = case_of(saved, CASES[1], tmp_path)
    file = folder / f"model_{ITERATION:07d}.rank_1.pth"
    values, headers = read_weights(file), read_weights(file, values=False)
    for part, state in values.parts.items():
        assert {name: tensor.shape for name, tensor in state.items()} == {
            name: tensor.shape for name, tensor in headers.parts[part].items()
        }
        assert all(tensor.is_meta for tensor in headers.parts[part].values())


def test_of_several_checkpoints_the_final_one_is_taken_else_the_newest(saved: Path, tmp_path: Path) -> None:
    folder, _ = case_of(saved, CASES[1], tmp_path)
    for name in ("model_0000499", "model_final"):
        for rank in range(CASES[1].ranks):
            source = folder / f"model_{ITERATION:07d}.rank_{rank}.pth"
            shutil.copy(source, folder / f"{name}.rank_{rank}.pth")
    assert [file.name for file in read_weights(folder).files] == [f"model_final.rank_{rank}.pth" for rank in range(3)]
    for file in folder.glob("model_final*"):
        file.unlink()
    assert all(file.name.startswith("model_0000999") for file in read_weights(folder).files)


def test_a_missing_rank_is_named(saved: Path, tmp_path: Path) -> None:
    folder, _ = case_of(saved, CASES[1], tmp_path)
    (folder / f"model_{ITERATION:07d}.rank_0.pth").unlink()
    with pytest.raises(WeightsError, match=r"3 processes wrote this checkpoint and model_0000999\.rank_0\.pth is not"):
        read_weights(folder)


def test_without_its_configuration_a_network_of_no_public_size_is_refused(saved: Path, tmp_path: Path) -> None:
    folder, _ = case_of(saved, CASES[0], tmp_path)
    (folder / "config.yaml").unlink()
    with pytest.raises(WeightsError, match=r"no public architecture\. Put the run's config\.yaml beside the files"):
        read_weights(folder)


def test_a_configuration_of_another_network_is_refused_with_both_counts(saved: Path, tmp_path: Path) -> None:
    folder, _ = case_of(saved, CASES[0], tmp_path)
    (folder / "config.yaml").write_text(CONFIG.replace("depth: 4", "depth: 3"))
    with pytest.raises(WeightsError, match=r"\(backbone\): [\d,]+ values in the files, [\d,]+ in its architecture"):
        read_weights(folder)
    with pytest.raises(WeightsError, match=r"says student\.arch=vit_custom, and not vit_base"):
        read_weights(folder, arch="vit_base")


def test_a_file_of_a_rank_that_would_run_code_is_refused_by_name(saved: Path, tmp_path: Path) -> None:
    folder, _ = case_of(saved, CASES[0], tmp_path)
    torch.save({"model": {"teacher.x": print}}, folder / f"model_{ITERATION:07d}.rank_0.pth")
    with pytest.raises(WeightsError, match=r"(builtins\.)?print would have to be called, and nothing"):
        read_weights(folder)


def flat(network: DinoVisionTransformer, *, chunks: int) -> dict[str, Tensor]:
    """Units as FSDP lays them out, of one process."""
    entries = list(network.named_parameters())
    if not chunks:
        return {"backbone": torch.cat([tensor.detach().flatten() for _, tensor in entries])}
    per_chunk = network.n_blocks // chunks
    units: dict[str, list[Tensor]] = {}
    for name, tensor in entries:
        chunk = f".blocks.{int(name.split('.')[1]) // per_chunk}" if name.startswith("blocks.") else ""
        units.setdefault(f"backbone{chunk}", []).append(tensor.detach().flatten())
    return {unit: torch.cat(tensors) for unit, tensors in units.items()}


@pytest.mark.parametrize("chunks", [0, 4])
def test_sizes_alone_tell_a_public_architecture(tmp_path: Path, chunks: int) -> None:
    network = vit_small(14, num_register_tokens=4, img_size=98, init_values=1.0)
    merged = by_unit(flat(network, chunks=chunks), source=tmp_path, arch=None)
    for name, tensor in network.state_dict().items():
        assert torch.equal(merged[f"backbone.{name}"], tensor), name
    with pytest.raises(WeightsError, match="are those of no vit_base"):
        by_unit(flat(network, chunks=chunks), source=tmp_path, arch="vit_base")
