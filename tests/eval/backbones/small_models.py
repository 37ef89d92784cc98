"""Small models with random weights, in the folders and files in which users have them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
WIDE = {**SIZES, "intermediate_size": 64}


def lively(network: nn.Module, *, seed: int = 0) -> Any:
    """Weights large enough that a wrong activation, order or norm cannot hide in rounding."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.15)
            elif "norm" not in name and "lambda" not in name and name != "logit_scale":
                nn.init.normal_(parameter, std=0.1)
            elif name != "logit_scale":
                nn.init.uniform_(parameter, 0.5, 1.5)
    return network.eval()


def build(kind: str) -> Any:
    """A model of transformers of each family, as its makers save it."""
    t = transformers
    makers = {
        "vit": lambda: t.ViTForImageClassification(t.ViTConfig(**WIDE)),
        "vit_mae": lambda: t.ViTMAEForPreTraining(
            t.ViTMAEConfig(
                **WIDE,
                decoder_hidden_size=16,
                decoder_num_hidden_layers=1,
                decoder_num_attention_heads=2,
                decoder_intermediate_size=16,
            )
        ),
        "vit_msn": lambda: t.ViTMSNModel(t.ViTMSNConfig(**WIDE)),
        "clip": lambda: clip_model(),
        "sam": lambda: t.SamModel(
            t.SamConfig(
                vision_config={
                    **SIZES,
                    "mlp_dim": 64,
                    "window_size": 3,
                    "global_attn_indexes": [1],
                    "num_pos_feats": 16,
                    "output_channels": 32,
                },
                prompt_encoder_config={"hidden_size": 32, "image_size": 32, "patch_size": 8},
                mask_decoder_config={
                    "hidden_size": 32,
                    "mlp_dim": 32,
                    "num_attention_heads": 2,
                    "iou_head_hidden_dim": 16,
                },
            )
        ),
        "dinov3_vit": lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(**WIDE, num_register_tokens=3)),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**SIZES)),
        "dinov2_with_registers": lambda: t.Dinov2WithRegistersModel(
            t.Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3)
        ),
    }
    return lively(makers[kind]())


def clip_model(*, activation: str = "quick_gelu") -> Any:
    """A CLIPModel whose heads are 64 wide and whose vocabulary is that of `write_vocabulary`."""
    tokens = len(vocabulary())
    config = transformers.CLIPConfig(
        vision_config={**WIDE, "hidden_size": 128, "hidden_act": activation},
        text_config={
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "intermediate_size": 96,
            "hidden_act": activation,
            "vocab_size": tokens,
            "max_position_embeddings": 12,
            "bos_token_id": tokens - 2,
            "eos_token_id": tokens - 1,
            "pad_token_id": tokens - 1,
        },
        projection_dim=48,
    )
    return lively(transformers.CLIPModel(config))


def vocabulary() -> dict[str, int]:
    """Every byte, alone and at a word's end, two merged pairs, and the begin and end of a text."""
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "no", "lu", "<|startoftext|>", "<|endoftext|>"]
    return {piece: place for place, piece in enumerate(pieces)}


def write_vocabulary(folder: Path) -> None:
    """`vocab.json` and `merges.txt`, as CLIP's are spelt."""
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("#version: 0.2\nn o\nl u\n")


def in_open_clip_names(model: Any) -> dict[str, Tensor]:
    """The weights of a CLIPModel under open_clip's names, written out independently of the map under test."""
    theirs = model.state_dict()
    state = {
        "logit_scale": theirs["logit_scale"],
        "visual.class_embedding": theirs["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": theirs["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": theirs["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": theirs["visual_projection.weight"].T,
        "token_embedding.weight": theirs["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": theirs["text_model.embeddings.position_embedding.weight"],
        "text_projection": theirs["text_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        state[f"visual.ln_pre.{kind}"] = theirs[f"vision_model.pre_layrnorm.{kind}"]
        state[f"visual.ln_post.{kind}"] = theirs[f"vision_model.post_layernorm.{kind}"]
        state[f"ln_final.{kind}"] = theirs[f"text_model.final_layer_norm.{kind}"]
        for tower, root, depth in (("vision_model", "visual.", 3), ("text_model", "", 2)):
            for i in range(depth):
                old, new = f"{tower}.encoder.layers.{i}", f"{root}transformer.resblocks.{i}"
                qkv = [theirs[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                state[f"{new}.attn.in_proj_{kind}"] = torch.cat(qkv)
                state[f"{new}.attn.out_proj.{kind}"] = theirs[f"{old}.self_attn.out_proj.{kind}"]
                for n in (1, 2):
                    state[f"{new}.ln_{n}.{kind}"] = theirs[f"{old}.layer_norm{n}.{kind}"]
                state[f"{new}.mlp.c_fc.{kind}"] = theirs[f"{old}.mlp.fc1.{kind}"]
                state[f"{new}.mlp.c_proj.{kind}"] = theirs[f"{old}.mlp.fc2.{kind}"]
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


def write_open_clip(folder: Path, *, model: Any, quick_gelu: bool, config: dict[str, Any] | None = None) -> Path:
    """A folder as open_clip pushes it to the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(in_open_clip_names(model), folder / "open_clip_pytorch_model.bin")
    said = {
        "model_cfg": {
            "embed_dim": 48,
            "quick_gelu": quick_gelu,
            "vision_cfg": {"image_size": 32, "layers": 3, "width": 128, "patch_size": 8},
            "text_cfg": {"context_length": 12, "vocab_size": len(vocabulary()), "width": 64, "heads": 1, "layers": 2},
        },
        "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic"},
    }
    said["model_cfg"]["vision_cfg"] |= config or {}
    (folder / "open_clip_config.json").write_text(json.dumps(said))
    write_vocabulary(folder)
    return folder
