"""The student, its teacher and the centres of the two assignments.

In: the `student`, `dino`, `ibot` sections. Out: `Networks`, whose state dict has the public names `student.backbone.*`,
`student.dino_head.*`, `teacher.*`, `dino_loss.center`, `ibot_patch_loss.center`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dinov2.config import schema
from dinov2.layers import DINOHead
from dinov2.loss import DINOLoss, iBOTPatchLoss
from dinov2.loss.assignment import Reductions
from dinov2.models.registry import build_backbone
from dinov2.models.vision_transformer import DinoVisionTransformer

PARTS = ("backbone", "dino_head", "ibot_head")


class Networks(nn.Module):
    """Two networks of the same shape, and the centres.

    `student` and `teacher` map part names (`backbone`, `dino_head`, `ibot_head`) to modules. A head that no loss
    needs is not built.
    """

    def __init__(
        self, *, student: nn.ModuleDict, teacher: nn.ModuleDict, dino_loss: DINOLoss, ibot_patch_loss: iBOTPatchLoss
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.dino_loss = dino_loss
        self.ibot_patch_loss = ibot_patch_loss
        self.teacher.requires_grad_(False)
        self.align_teacher()

    def parts(self, side: str) -> nn.ModuleDict:
        """The parts of the "student" or the "teacher"."""
        return {"student": self.student, "teacher": self.teacher}[side]

    @property
    def patch_head(self) -> str:
        """Name of the head that patch tokens go through."""
        return "ibot_head" if "ibot_head" in self.student else "dino_head"

    def centers(self) -> list[Tensor]:
        """The running centres of both assignments, as they are: not copies."""
        return [self.dino_loss.center, self.ibot_patch_loss.center]

    def align_teacher(self) -> None:
        """Copies the student's weights into the teacher, as at the start of a run."""
        self.teacher.load_state_dict(self.student.state_dict())


def backbone_of(parts: Mapping[str, nn.Module] | nn.ModuleDict) -> DinoVisionTransformer:
    """The backbone among the parts of a student or teacher."""
    backbone = parts["backbone"]
    assert isinstance(backbone, DinoVisionTransformer)
    return backbone


def build_networks(
    *,
    student: schema.Student,
    dino: schema.Dino,
    ibot: schema.Ibot,
    img_size: int,
    attention: str,
    reductions: Reductions | None,
) -> Networks:
    """Freshly initialised networks; random numbers are drawn in the public order, so equal seeds give equal weights.

    `reductions` sum over all ranks; None for one process.
    """
    teacher_parts: dict[str, nn.Module] = {}
    student_parts: dict[str, nn.Module] = {}
    teacher_parts["backbone"] = build_backbone(student, img_size=img_size, drop_path_rate=0.0, attention=attention)
    backbone = build_backbone(student, img_size=img_size, drop_path_rate=student.drop_path_rate, attention=attention)
    student_parts["backbone"] = backbone
    for name, section in needed_heads(dino=dino, ibot=ibot).items():
        for parts in (student_parts, teacher_parts):
            parts[name] = DINOHead(
                in_dim=backbone.embed_dim,
                out_dim=section.head_n_prototypes,
                nlayers=section.head_nlayers,
                hidden_dim=section.head_hidden_dim,
                bottleneck_dim=section.head_bottleneck_dim,
            )
    patch_section = ibot if ibot.separate_head else dino
    return Networks(
        student=nn.ModuleDict(student_parts),
        teacher=nn.ModuleDict(teacher_parts),
        dino_loss=DINOLoss(dino.head_n_prototypes, reductions=reductions),
        ibot_patch_loss=iBOTPatchLoss(
            patch_section.head_n_prototypes,
            reductions=reductions,
            processes_alike=ibot.center_weighs_processes_alike,
        ),
    )


def build_teacher(
    state: Mapping[str, Tensor] | None, *, student: schema.Student, dino: schema.Dino, ibot: schema.Ibot, img_size: int
) -> nn.ModuleDict:
    """A teacher around the tensors of `state` (no copies), in evaluation mode; nothing is initialised.

    Without a state it is on the meta device: names and shapes, and no memory.
    """
    with torch.device("meta"):
        teacher = build_networks(
            student=student, dino=dino, ibot=ibot, img_size=img_size, attention="sdpa", reductions=None
        ).teacher
    if state is not None:
        teacher.load_state_dict(state, strict=True, assign=True)
    return teacher.eval()


def needed_heads(*, dino: schema.Dino, ibot: schema.Ibot) -> dict[str, schema.Dino | schema.Ibot]:
    """The heads that a loss uses, and the section that gives each its size."""
    heads: dict[str, schema.Dino | schema.Ibot] = {}
    if dino.loss_weight > 0 or (ibot.loss_weight > 0 and not ibot.separate_head):
        heads["dino_head"] = dino
    if ibot.loss_weight > 0 and ibot.separate_head:
        heads["ibot_head"] = ibot
    return heads
