"""Trainings that go on from weights made elsewhere: every form in which public weights are found, five steps each."""

import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from dinov2.checkpoint.export import export_teacher, make_card
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.layers import DINOHead
from dinov2.models import DinoVisionTransformer
from dinov2.models.key_maps import from_transformers
from dinov2.ssl import Networks
from tests.integration.in_process import finished
from tests.integration.runs import write_pictures

STEPS, FROZEN = 5, 4
SIZES = {"img_size": 70, "patch_size": 14, "embed_dim": 64, "depth": 2, "num_heads": 2, "init_values": 1.0}
HEAD = {"in_dim": 64, "out_dim": 48, "hidden_dim": 32, "bottleneck_dim": 16}
TINY = (
    "student={arch: vit_custom, patch_size: 14, embed_dim: 64, depth: 2, num_heads: 2, layerscale: 1.0}",
    "crops={global_crops_size: 70, local_crops_size: 28, local_crops_number: 2}",
    "dino={head_n_prototypes: 48, head_hidden_dim: 32, head_bottleneck_dim: 16}",
    "train={batch_size_per_gpu: 4, num_workers: 0}",
    "optim={total_steps: 5, warmup_steps: 1, freeze_last_layer_steps: 0, lr: 0.002}",
    "teacher={warmup_teacher_temp_steps: 2, momentum_teacher: 0.9, final_momentum_teacher: 0.9}",
    "checkpoint={every_steps: 100, self_test: false, asynchronous: false}",
    "monitors.every_steps=0",
    "logging.every_steps=1",
    "evaluation.eval_period_iterations=4",
    "runtime={precision: fp32, device: cpu}",
    "init_from={freeze_backbone_steps: 4, head_lr_factor: 2}",
)
WITH_HEAD, HEAD_IS_NEW = "(dino_head): 8 tensors loaded", "random weights: dino_head; for 4 steps they alone learn"


@dataclass(frozen=True)
class Start:
    """Weights to continue, and what the run must make of them."""

    name: str | Path  # student.pretrained_weights
    backbone: dict[str, Tensor]  # what the run begins with; names that it lacks begin at random
    said: tuple[str, ...]
    words: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), count=12)


def config_of(pictures: Path, *words: str) -> Config:
    return load_config(None, overrides=[*TINY, f"train.dataset_path={pictures}", *words]).config


def vit(**changed: int) -> DinoVisionTransformer:
    torch.manual_seed(3)
    return DinoVisionTransformer(**SIZES | changed)


def head() -> dict[str, Tensor]:
    torch.manual_seed(4)
    return dict(DINOHead(**HEAD).state_dict())


def public_file(folder: Path) -> Start:
    state = dict(vit().state_dict())
    torch.save(state, folder / "dinov2_tiny.pth")
    return Start(folder / "dinov2_tiny.pth", state, (HEAD_IS_NEW,))


def teacher_dump(folder: Path) -> Start:
    backbone = dict(vit().state_dict())
    parts = {"backbone": backbone, "dino_head": head()}
    teacher = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
    torch.save({"teacher": teacher}, folder / "teacher_checkpoint.pth")
    return Start(folder / "teacher_checkpoint.pth", backbone, (WITH_HEAD,))


def per_rank_files(folder: Path) -> Start:
    """As the public trainer saves them; with the centres of its losses."""
    from tests.models import sharded_run

    subprocess.run([sys.executable, "-m", "tests.models.sharded_run", str(folder)], check=True, capture_output=True)
    case = next(case for case in sharded_run.CASES if case.ranks == 3 and case.original)
    whole = torch.load(folder / case.name / "whole.pt", weights_only=True)
    vit_sizes, sizes = sharded_run.ARCHITECTURE, sharded_run.HEAD
    prefix, chunk = "teacher.backbone.", re.compile(r"^blocks\.\d+\.(\d+)\.")
    backbone = {
        chunk.sub(r"blocks.\1.", name.removeprefix(prefix)): value
        for name, value in whole.items()
        if name.startswith(prefix)
    }
    heads = f"head_n_prototypes: {sizes['out_dim']}, head_hidden_dim: {sizes['hidden_dim']}"
    heads += f", head_bottleneck_dim: {sizes['bottleneck_dim']}"
    words = (
        *(f"student.{name}={vit_sizes[name]}" for name in ("embed_dim", "depth", "num_heads", "num_register_tokens")),
        f"crops.global_crops_size={vit_sizes['img_size']}",
        f"dino={{{heads}}}",
        f"ibot={{{heads}, separate_head: true}}",
    )
    said = (
        "(dino_head)",
        "(ibot_head)",
        "dino_center taken with its dino_head",
        "ibot_center taken with its ibot_head",
    )
    return Start(folder / case.name, backbone, said, words)


def hugging_face(folder: Path) -> dict[str, Tensor]:
    """A folder of the real library; the same weights under public names."""
    torch.manual_seed(5)
    config = Dinov2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return from_transformers(load_file(folder / "model.safetensors"))


def rad_dinos_folder(folder: Path) -> Start:
    """As its repository on the hub: the library's own file, the public names beside it, and the head."""
    backbone = hugging_face(folder)
    save_file(
        {name: value.contiguous() for name, value in backbone.items()}, folder / "backbone_compatible.safetensors"
    )
    save_file(head(), folder / "dino_head.safetensors")
    return Start(folder, backbone, (WITH_HEAD,))


def folder_without_registers(folder: Path) -> Start:
    backbone = hugging_face(folder)
    return Start(folder, backbone, ("register_tokens", HEAD_IS_NEW), ("student.num_register_tokens=4",))


def name_of_a_hub(folder: Path) -> Start:
    """A cache as huggingface_hub makes it, and no network."""
    cached = folder / "hub" / "models--owner--tiny"
    backbone = hugging_face(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    for ref in ("main", "v1"):
        (cached / "refs" / ref).write_text("abc")
    return Start("owner/tiny", backbone, (HEAD_IS_NEW,), ("init_from.revision=v1",))


def timms_names(folder: Path) -> Start:
    from dinov2.formats.timm_names import to_timm

    state = dict(vit().state_dict())
    theirs, _ = to_timm(state)
    save_file(theirs, folder / "timm.safetensors")
    del state["mask_token"]  # timm keeps none
    return Start(
        folder / "timm.safetensors", state, ("mask_token", HEAD_IS_NEW), ("init_from.allow_missing=[mask_token]",)
    )


def own_export(folder: Path) -> Start:
    config = load_config(None, overrides=[*TINY, "student.pretrained_weights=x"]).config
    parts: dict[str, torch.nn.Module] = {"backbone": vit(), "dino_head": DINOHead(**HEAD)}
    parts["dino_head"].load_state_dict(head())
    card = make_card(config, parts, step=1, provenance={})
    export_teacher(parts, card=card, folder=folder / "export")
    return Start(folder / "export", dict(parts["backbone"].state_dict()), (WITH_HEAD,))


def colour_into_grey(folder: Path) -> Start:
    start = public_file(folder)
    name = "patch_embed.proj.weight"
    summed = start.backbone | {name: start.backbone[name].sum(dim=1, keepdim=True)}
    words = ("student.in_chans=1", "data={mean: [0.5], std: [0.25]}")
    return Start(start.name, summed, ("3 channels summed to 1", HEAD_IS_NEW), words)


def another_table(folder: Path) -> Start:
    state = dict(vit(img_size=98).state_dict())
    torch.save(state, folder / "larger.pth")
    del state["pos_embed"]
    return Start(folder / "larger.pth", state, ("7 x 7 patches resampled to 5 x 5", HEAD_IS_NEW))


MADE: tuple[Callable[[Path], Start], ...] = (
    public_file,
    teacher_dump,
    per_rank_files,
    rad_dinos_folder,
    folder_without_registers,
    name_of_a_hub,
    timms_names,
    own_export,
    colour_into_grey,
    another_table,
)


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_a_training_goes_on_from_it_for_five_steps(
    make: Callable[[Path], Start], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "given").mkdir()
    start = make(tmp_path if make is name_of_a_hub else tmp_path / "given")
    config = config_of(pictures, f"student.pretrained_weights={start.name}", *start.words)
    words, reports = finished(config, tmp_path / "run")
    for text in start.said:
        assert text in words
    assert [report.step for report in reports] == list(range(1, STEPS + 1))
    assert all(math.isfinite(report.metrics["total_loss"]) for report in reports)
    exports = tmp_path / "run" / "exports"
    began, ended = (load_file(exports / str(step) / "backbone.safetensors") for step in (FROZEN, STEPS))
    assert began.keys() == ended.keys()
    assert set(start.backbone) <= set(began)
    for name, value in start.backbone.items():
        assert torch.equal(began[name], value), f"{name} is not the file's while the backbone is frozen"
    assert any(not torch.equal(value, began[name]) for name, value in ended.items()), "nothing was learned"


def test_a_run_that_was_stopped_while_frozen_or_at_its_end_is_the_run_that_was_not(
    pictures: Path, tmp_path: Path
) -> None:
    start = teacher_dump(tmp_path)
    words = (f"student.pretrained_weights={start.name}", "init_from.freeze_backbone_steps=2")
    config = config_of(pictures, *words, "evaluation.eval_period_iterations=0")
    finished(config, tmp_path / "whole")
    for stop_after in (1, 2):
        run = tmp_path / f"stopped_after_{stop_after}"
        finished(config, run, stop_after=stop_after)
        assert not (run / "exports" / str(STEPS)).exists()
        said, _ = finished(config, run)
        assert f"at step {stop_after} of {STEPS}" in said
        for file in (
            "training_metrics.json",
            f"exports/{STEPS}/backbone.safetensors",
            f"exports/{STEPS}/dino_head.safetensors",
        ):
            assert (run / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), (stop_after, file)


def test_the_lines_of_a_run_with_a_head_warm_up_tell_both_rates(pictures: Path, tmp_path: Path) -> None:
    start = public_file(tmp_path)
    _, reports = finished(config_of(pictures, f"student.pretrained_weights={start.name}"), tmp_path / "run")
    rates = [(r.metrics["backbone_lr"], r.metrics["head_lr"], r.metrics["lr"]) for r in reports]
    assert all((backbone, head) == (0, 2 * lr) for backbone, head, lr in rates[:FROZEN])
    assert all(backbone == head == lr > 0 for backbone, head, lr in rates[FROZEN:])
    assert [r.metrics["grad_norm_backbone"] > 0 for r in reports] == [False] * FROZEN + [True]


def test_centres_are_taken_where_centring_uses_them_and_the_head_is_the_same_files(
    pictures: Path, tmp_path: Path
) -> None:
    from dinov2.train.build import random_networks
    from dinov2.train.start import load_files

    backbone, own_head = dict(vit().state_dict()), head()
    centers = {"dino_loss.center": torch.randn(1, 48), "ibot_patch_loss.center": torch.randn(1, 1, 48)}
    teacher = {f"teacher.backbone.{name}": value for name, value in backbone.items()}
    teacher |= {f"teacher.dino_head.{name}": value for name, value in own_head.items()}
    torch.save({"model": teacher | centers}, tmp_path / "model_0000009.pth")
    save_file(own_head, tmp_path / "dino_head.safetensors")

    def loaded(*words: str) -> tuple[Networks, str]:
        config = config_of(pictures, f"student.pretrained_weights={tmp_path / 'model_0000009.pth'}", *words)
        networks = random_networks(config)
        return networks, "\n".join(load_files(networks, config))

    networks, said = loaded()
    assert torch.equal(networks.dino_loss.center.flatten(), centers["dino_loss.center"].flatten())
    assert torch.equal(networks.ibot_patch_loss.center.flatten(), centers["ibot_patch_loss.center"].flatten())
    assert "dino_center taken" in said
    networks, said = loaded(f"init_from.dino_head={tmp_path / 'dino_head.safetensors'}")
    assert float(networks.dino_loss.center.abs().max()) == 0
    assert "no dino_center for its dino_head, it starts at 0" in said
    networks, said = loaded("train.centering=sinkhorn_knopp")
    assert float(networks.dino_loss.center.abs().max()) == 0
    assert "center" not in said
