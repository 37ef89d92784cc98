from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.distributed import World
from dinov2.errors import WeightsError
from dinov2.ssl import Networks
from dinov2.train.build import build_tools
from dinov2.train.start import start_weights
from dinov2.train.step import StepTools
from tests.train.test_step import WORDS

WORLD = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))


def made(*words: str, seed: int = 0) -> tuple[StepTools, Config]:
    config = load_config(None, overrides=[*WORDS, f"train.seed={seed}", *words]).config
    return build_tools(config, world=WORLD), config


def start(tools: StepTools, config: Config) -> list[str]:
    return list(start_weights(tools, config, world=WORLD))


def dump_of_another_run(folder: Path, *words: str) -> tuple[Networks, Path]:
    """A full teacher dump, as the public trainer writes it."""
    tools, _ = made(*words, seed=1)
    path = folder / "teacher_checkpoint.pth"
    torch.save({"teacher": dict(tools.networks.teacher.state_dict())}, path)
    return tools.networks, path


def test_a_teacher_dump_fills_backbone_and_head_of_student_and_teacher(tmp_path: Path) -> None:
    source, path = dump_of_another_run(tmp_path)
    tools, config = made(f"student.pretrained_weights={path}")
    backbone, head, centers = start(tools, config)
    assert "(backbone): 35 tensors loaded" in backbone
    assert "(dino_head): 8 tensors loaded" in head
    assert "no dino_center for its dino_head, it starts at 0" in centers
    for name, value in source.teacher.state_dict().items():
        assert torch.equal(tools.networks.student.state_dict()[name], value)
        assert torch.equal(tools.networks.teacher.state_dict()[name], value)


def test_a_position_table_of_another_size_is_resized_and_said(tmp_path: Path) -> None:
    _, path = dump_of_another_run(tmp_path)
    tools, config = made(f"student.pretrained_weights={path}", "crops.global_crops_size=48")
    report = "\n".join(start(tools, config))
    assert "resized pos_embed: 4 x 4 patches resampled to 6 x 6" in report


def test_weights_of_another_architecture_are_refused_with_both_sides(tmp_path: Path) -> None:
    _, path = dump_of_another_run(tmp_path, "student.embed_dim=64")
    tools, config = made(f"student.pretrained_weights={path}")
    with pytest.raises(WeightsError, match=r"blocks\.0\.attn\.qkv\.weight: \[192, 64\] in the file, \[96, 32\]"):
        start(tools, config)


def test_a_head_of_another_size_is_refused_unless_it_is_left_out(tmp_path: Path) -> None:
    source, path = dump_of_another_run(tmp_path, "dino.head_n_prototypes=96")
    tools, config = made(f"student.pretrained_weights={path}")
    with pytest.raises(WeightsError, match=r"init_from\.dino_head=none"):
        start(tools, config)
    tools, config = made(f"student.pretrained_weights={path}", "init_from.dino_head=none")
    start(tools, config)
    assert torch.equal(tools.networks.teacher["backbone"].cls_token, source.teacher["backbone"].cls_token)


def test_heads_come_from_files_of_their_own(tmp_path: Path) -> None:
    source, _ = dump_of_another_run(tmp_path)
    head = tmp_path / "dino_head.safetensors"
    save_file(dict(source.teacher["dino_head"].state_dict()), head)
    sizes = [f"ibot.head_{name}" for name in ("n_prototypes=48", "hidden_dim=32", "bottleneck_dim=16")]
    words = [f"init_from.dino_head={head}", f"init_from.ibot_head={head}", "ibot.separate_head=true", *sizes]
    tools, config = made(*words)
    start(tools, config)
    for name in ("dino_head", "ibot_head"):
        for key, value in source.teacher["dino_head"].state_dict().items():
            assert torch.equal(tools.networks.teacher[name].state_dict()[key], value)


def test_without_weights_nothing_is_loaded() -> None:
    tools, config = made()
    before = {name: value.clone() for name, value in tools.networks.state_dict().items()}
    assert start(tools, config) == []
    assert all(torch.equal(value, before[name]) for name, value in tools.networks.state_dict().items())
