"""The shape of a configuration: frozen typed sections; key tree of the public DINOv2 `ssl_default_config.yaml`.

In: nothing. Out: types. Values come from `dinov2.config.load`; what each key means is said beside it in
`configs/ssl_default_config.yaml`, and the defaults here and there are equal (a test sees to it).
Sections that the public tree does not have: data, augmentation, checkpoint, monitors, logging, runtime, init_from.
"""

from dataclasses import dataclass, field
from typing import Literal

Dtype = Literal["fp16", "bf16", "fp32"]
Architecture = Literal["vit_small", "vit_base", "vit_large", "vit_giant2", "vit_custom"]
ShardingStrategy = Literal["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD"]


@dataclass(frozen=True)
class ModelSection:
    """`MODEL` of old files."""

    WEIGHTS: str = ""


@dataclass(frozen=True)
class MixedPrecision:
    """Number formats of one sharded sub-module."""

    param_dtype: Dtype = "fp16"
    reduce_dtype: Dtype = "fp16"
    buffer_dtype: Dtype = "fp32"


@dataclass(frozen=True)
class ModulePrecision:
    """Sharding and number formats of one sub-module."""

    sharding_strategy: ShardingStrategy = "SHARD_GRAD_OP"
    mixed_precision: MixedPrecision = field(default_factory=MixedPrecision)


def _head_of_student() -> ModulePrecision:
    return ModulePrecision(mixed_precision=MixedPrecision(reduce_dtype="fp32"))


@dataclass(frozen=True)
class TeacherPrecision:
    """`compute_precision.teacher`."""

    backbone: ModulePrecision = field(default_factory=ModulePrecision)
    dino_head: ModulePrecision = field(default_factory=ModulePrecision)
    ibot_head: ModulePrecision = field(default_factory=ModulePrecision)


@dataclass(frozen=True)
class StudentPrecision:
    """`compute_precision.student`."""

    backbone: ModulePrecision = field(default_factory=ModulePrecision)
    dino_head: ModulePrecision = field(default_factory=_head_of_student)
    ibot_head: ModulePrecision = field(default_factory=_head_of_student)


@dataclass(frozen=True)
class ComputePrecision:
    """`compute_precision`."""

    grad_scaler: bool = True
    teacher: TeacherPrecision = field(default_factory=TeacherPrecision)
    student: StudentPrecision = field(default_factory=StudentPrecision)


@dataclass(frozen=True)
class Dino:
    """`dino`: the CLS-token loss and its head; KoLeo beside it."""

    loss_weight: float = 1.0
    head_n_prototypes: int = 65536
    head_bottleneck_dim: int = 256
    head_nlayers: int = 3
    head_hidden_dim: int = 2048
    koleo_loss_weight: float = 0.1
    koleo_over_all_processes: bool = False


@dataclass(frozen=True)
class Ibot:
    """`ibot`: the masked-patch loss, its masks and, where separate, its head."""

    loss_weight: float = 1.0
    mask_sample_probability: float = 0.5
    mask_ratio_min_max: tuple[float, float] = (0.1, 0.5)
    separate_head: bool = False
    head_n_prototypes: int = 65536
    head_bottleneck_dim: int = 256
    head_nlayers: int = 3
    head_hidden_dim: int = 2048
    center_weighs_processes_alike: bool = False


@dataclass(frozen=True)
class Train:
    """`train`."""

    batch_size_per_gpu: int = 64
    global_batch_size: int | None = None
    dataset_path: str = "ImageNet:split=TRAIN"
    output_dir: str = "."
    saveckp_freq: int = 20
    seed: int = 0
    num_workers: int = 10
    OFFICIAL_EPOCH_LENGTH: int = 1250
    cache_dataset: bool = True
    centering: Literal["centering", "sinkhorn_knopp"] = "centering"


@dataclass(frozen=True)
class Student:
    """`student`: the architecture of both networks."""

    arch: Architecture = "vit_large"
    patch_size: int = 16
    drop_path_rate: float = 0.3
    layerscale: float = 1.0e-5
    drop_path_uniform: bool = True
    pretrained_weights: str = ""
    ffn_layer: Literal["mlp", "swiglu", "swiglufused", "identity"] = "mlp"
    block_chunks: int = 0
    qkv_bias: bool = True
    proj_bias: bool = True
    ffn_bias: bool = True
    num_register_tokens: int = 0
    interpolate_antialias: bool = False
    interpolate_offset: float = 0.1
    in_chans: int = 3
    # Only read where arch is vit_custom:
    embed_dim: int = 192
    depth: int = 12
    num_heads: int = 3
    mlp_ratio: float = 4.0


@dataclass(frozen=True)
class Teacher:
    """`teacher`: momentum and temperature."""

    momentum_teacher: float = 0.992
    final_momentum_teacher: float = 1.0
    warmup_teacher_temp: float = 0.04
    teacher_temp: float = 0.07
    warmup_teacher_temp_epochs: float = 30
    warmup_teacher_temp_steps: int | None = None


@dataclass(frozen=True)
class Optim:
    """`optim`: AdamW, its schedules and the length of the run."""

    epochs: float = 100
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    base_lr: float = 0.004
    lr: float = 0.0
    warmup_epochs: float = 10
    min_lr: float = 1.0e-6
    clip_grad: float = 3.0
    freeze_last_layer_epochs: float = 1
    scaling_rule: Literal["sqrt_wrt_1024", "linear_wrt_256", "none"] = "sqrt_wrt_1024"
    patch_embed_lr_mult: float = 0.2
    layerwise_decay: float = 0.9
    adamw_beta1: float = 0.9
    adamw_beta2: float = 0.999
    total_steps: int | None = None
    warmup_steps: int | None = None
    freeze_last_layer_steps: int | None = None


@dataclass(frozen=True)
class Crops:
    """`crops`."""

    global_crops_scale: tuple[float, float] = (0.32, 1.0)
    local_crops_number: int = 8
    local_crops_scale: tuple[float, float] = (0.05, 0.32)
    global_crops_size: int = 224
    local_crops_size: int = 96


@dataclass(frozen=True)
class Evaluation:
    """`evaluation`."""

    eval_period_iterations: int = 12500


@dataclass(frozen=True)
class Data:
    """`data`: which pictures of `train.dataset_path` are used, and their normalisation."""

    splits: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    fraction: float = 1.0
    include: str = ""
    exclude: str = ""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    max_unreadable_share: float = 0.01
    prefetch_batches: int = 4
    cache: str = "none"
    cache_gib: float = 8.0


@dataclass(frozen=True)
class Augmentation:
    """`augmentation`: null takes the preset's value (`dinov2.data.augmentation.PRESETS`)."""

    preset: Literal["dinov2", "cxr"] = "dinov2"
    crop_ratio: tuple[float, float] | None = None  # width / height of the crop box
    hflip_p: float | None = None
    vflip_p: float | None = None
    rotation_p: float | None = None
    rotation_degrees: float | None = None  # drawn from -x .. x
    jitter_p: float | None = None
    brightness: float | None = None  # factor drawn from 1-x .. 1+x
    contrast: float | None = None
    gamma_p: float | None = None
    gamma: tuple[float, float] | None = None
    blur_sigma: tuple[float, float] | None = None  # in pixels of the crop
    blur_kernel: int | None = None  # side in pixels, odd
    global1_blur_p: float | None = None
    global2_blur_p: float | None = None
    local_blur_p: float | None = None
    global1_solarize_p: float | None = None
    global2_solarize_p: float | None = None
    local_solarize_p: float | None = None
    solarize_threshold: int | None = None  # grey level 0..255


@dataclass(frozen=True)
class Checkpoint:
    """`checkpoint`."""

    every_steps: int = 1000
    keep_last: int = 3
    keep_every_steps: int = 0
    keep_best: int = 1
    select_by: str = ""
    select_mode: Literal["min", "max"] = "max"
    asynchronous: bool = True
    self_test: bool = True


@dataclass(frozen=True)
class Monitors:
    """`monitors`: how the teacher is judged while it trains."""

    every_steps: int = 500
    dataset: str = ""
    labels: tuple[str, ...] = ()
    train_split: str = "train"
    val_split: str = "val"
    probes: tuple[str, ...] = ("knn", "linear")
    max_pictures: int = 2048
    size: int = 0
    batch_size: int | None = None
    films: int = 12
    uniform_share: float = 0.99
    one_prototype_share: float = 0.05
    min_rank_share: float = 0.02
    max_cosine: float = 0.95
    patience: int = 2


@dataclass(frozen=True)
class Logging:
    """`logging`: how often a run says where it is, and to whom."""

    every_steps: int = 10
    loggers: tuple[str, ...] = ()
    console: Literal["auto", "table", "lines"] = "auto"
    pictures: Literal["local", "everywhere", "none"] = "local"
    project: str = "dinov2"
    run_name: str = ""
    tracking_uri: str = ""


@dataclass(frozen=True)
class Runtime:
    """`runtime`: where and how the run computes, and what happens when something breaks; not the method."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    attention: Literal["auto", "sdpa", "explicit", "xformers", "varlen"] = "auto"
    compile: Literal["auto", "always", "never"] = "auto"
    activation_checkpointing: Literal["none", "pointwise", "selective", "full"] = "pointwise"
    gradient_accumulation_steps: int = 1
    garbage_collection_steps: int = 1000
    shard_group_size: int | None = None
    max_nonfinite_steps: int = 5
    exchange_timeout_seconds: int = 600
    lost_seconds: int = 30
    stall_seconds: int = 300
    slow_data_seconds: int = 30
    requeue: bool = True


@dataclass(frozen=True)
class InitFrom:
    """`init_from`: heads to start from, which keys of the given weights need not fit (glob patterns), and a warm-up of
    the heads before the backbone."""

    dino_head: str = ""
    ibot_head: str = ""
    revision: str = ""
    allow_missing: tuple[str, ...] = ()
    allow_unexpected: tuple[str, ...] = ()
    freeze_backbone_steps: int = 0
    head_lr_factor: float = 1.0


@dataclass(frozen=True)
class Config:
    """A whole run."""

    MODEL: ModelSection = field(default_factory=ModelSection)
    compute_precision: ComputePrecision = field(default_factory=ComputePrecision)
    dino: Dino = field(default_factory=Dino)
    ibot: Ibot = field(default_factory=Ibot)
    train: Train = field(default_factory=Train)
    student: Student = field(default_factory=Student)
    teacher: Teacher = field(default_factory=Teacher)
    optim: Optim = field(default_factory=Optim)
    crops: Crops = field(default_factory=Crops)
    evaluation: Evaluation = field(default_factory=Evaluation)
    data: Data = field(default_factory=Data)
    augmentation: Augmentation = field(default_factory=Augmentation)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    monitors: Monitors = field(default_factory=Monitors)
    logging: Logging = field(default_factory=Logging)
    runtime: Runtime = field(default_factory=Runtime)
    init_from: InitFrom = field(default_factory=InitFrom)
