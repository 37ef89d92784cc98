"""Profiles of steps as one picture: a stacked bar for each, and under them each kind of work side by side.

In: `StepProfile`s. Out: a PNG. All bars have one scale, so that lengths can be compared throughout.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dinov2.bench.profile_step import KINDS, StepProfile

COLOURS = dict(
    zip(
        KINDS,
        ("#2f6db3", "#e07b39", "#4a9d6e", "#b8a13a", "#8a5fb0", "#c4515b", "#5a8f9c", "#9a9a9a", "#d9d9d9"),
        strict=True,
    )
)
INK, FAINT, PAPER = "#1c1c1c", "#6b6b6b", "#ffffff"
WIDTH, MARGIN, NAMES = 1400, 48, 340  # pixels; NAMES is the column of the kinds' names
VALUES = 190  # pixels kept free for the numbers behind a bar
BAR, THIN, GAP = 46, 20, 26
LARGE, USUAL, SMALL = 30, 21, 18  # pixels of type

Pen = ImageDraw.ImageDraw


def draw_profiles(profiles: Sequence[StepProfile], *, path: Path, title: str, device: str) -> None:
    """Writes the picture; profiles stand in their order, from top to bottom."""
    kinds = [kind for kind in KINDS if any(profile.kinds[kind] > 0 for profile in profiles)]
    row = THIN * len(profiles) + GAP
    height = 2 * MARGIN + 100 + len(profiles) * (BAR + 52) + 30 + row * len(kinds)
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=_type(LARGE))
    pen.text((MARGIN, MARGIN + 42), device, fill=FAINT, font=_type(SMALL))
    longest = max(profile.seconds for profile in profiles)
    top = MARGIN + 100
    for profile in profiles:
        top = _stacked(pen, profile, top=top, pixels_per_second=(WIDTH - 2 * MARGIN) / longest)
    pen.line((MARGIN, top + 4, WIDTH - MARGIN, top + 4), fill=COLOURS[KINDS[-1]], width=1)
    largest = max(max(profile.kinds.values()) for profile in profiles)
    per_second = (WIDTH - 2 * MARGIN - NAMES - VALUES) / largest
    for number, kind in enumerate(kinds):
        _kind(pen, kind, profiles, top=top + 30 + number * row, pixels_per_second=per_second)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def _stacked(pen: Pen, profile: StepProfile, *, top: int, pixels_per_second: float) -> int:
    """One bar with its label above it.  -> where the next one begins"""
    pen.text((MARGIN, top), profile.label, fill=INK, font=_type(USUAL))
    pen.text((WIDTH - MARGIN, top), _seconds(profile.seconds), fill=INK, font=_type(USUAL), anchor="ra")
    left, bar = float(MARGIN), top + 32
    for kind, seconds in profile.kinds.items():
        right = left + seconds * pixels_per_second
        if right - left >= 1:
            pen.rectangle((round(left), bar, round(right) - 1, bar + BAR), fill=COLOURS[kind])
        share = f"{seconds / profile.seconds:.0%}"
        if right - left > pen.textlength(share, font=_type(SMALL)) + 8:
            ink = INK if kind == KINDS[-1] else PAPER
            pen.text(((left + right) / 2, bar + BAR / 2), share, fill=ink, font=_type(SMALL), anchor="mm")
        left = right
    return bar + BAR + 20


def _kind(pen: Pen, kind: str, profiles: Sequence[StepProfile], *, top: int, pixels_per_second: float) -> None:
    """A kind's name, and a thin bar with its numbers for each profile."""
    middle = top + THIN * len(profiles) / 2
    pen.rectangle((MARGIN, middle - 9, MARGIN + 18, middle + 9), fill=COLOURS[kind])
    pen.text((MARGIN + 30, middle), kind, fill=INK, font=_type(USUAL), anchor="lm")
    for number, profile in enumerate(profiles):
        seconds, y = profile.kinds[kind], top + number * THIN
        left = MARGIN + NAMES
        right = left + max(round(seconds * pixels_per_second), 1)
        pen.rectangle((left, y + 2, right, y + THIN - 3), fill=COLOURS[kind])
        word = profile.label.partition(":")[0] if len(profiles) > 1 else ""
        numbers = f"{_seconds(seconds)}  {seconds / profile.seconds:.1%}  {word}".rstrip()
        pen.text((right + 10, y + THIN / 2), numbers, fill=FAINT, font=_type(SMALL), anchor="lm")


def _seconds(seconds: float) -> str:
    return (
        f"{seconds:.2f} s"
        if seconds >= 1
        else f"{1000 * seconds:.0f} ms"
        if seconds >= 0.01
        else f"{1000 * seconds:.1f} ms"
    )


def _type(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
