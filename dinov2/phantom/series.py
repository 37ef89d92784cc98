"""A set of films of several persons, with masks and labels: what a small archive looks like.

In: a folder, a count, a seed. Out: `dicom/`, `masks/`, `labels.csv`; the same bytes for the same count, seed and size.
"""

import csv
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dinov2.errors import LaunchError
from dinov2.phantom.anatomy import render
from dinov2.phantom.body import Findings, View, draw_body
from dinov2.phantom.dicom import BITS_STORED, SYNTAXES, Identification, Technique, write_film

COLUMNS = (
    "file",
    "patient_id",
    "view",
    "split",
    "label_nodule",
    "label_effusion",
    "label_cardiomegaly",
    "mask",
)
SPLITS = ("train", "train", "val", "train", "train", "test", "train")  # by patient, in turn
FILMS_PER_PATIENT = 3  # at most
SMALLEST_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class FilmPlan:
    """Everything about one film before it is drawn."""

    number: int
    patient: str
    split: str
    view: View
    findings: Findings
    technique: Technique

    @property
    def file(self) -> str:
        """Its path below the output folder."""
        return f"dicom/phantom_{self.number:05d}.dcm"

    @property
    def mask(self) -> str:
        """Its mask's path below the output folder: 0 background, 1 left lung, 2 right lung, 3 heart."""
        return f"masks/phantom_{self.number:05d}.png"


def plan_series(count: int, *, seed: int) -> tuple[FilmPlan, ...]:
    """Who is filmed how.  Techniques go round all syntaxes, bit depths and polarities; every split has patients from 18
    films on.
    """
    rng = np.random.default_rng([seed, 0])
    plans: list[FilmPlan] = []
    patient = 0
    while len(plans) < count:
        for _ in range(int(rng.integers(1, FILMS_PER_PATIENT + 1))):
            plans.append(_plan(len(plans), patient=patient, rng=rng))
        patient += 1
    return tuple(plans[:count])


def _plan(number: int, *, patient: int, rng: np.random.Generator) -> FilmPlan:
    nodule, effusion, cardiomegaly = (bool(rng.random() < share) for share in (0.3, 0.3, 0.3))
    return FilmPlan(
        number=number,
        patient=f"PHANTOM{patient:05d}",
        split=SPLITS[patient % len(SPLITS)],
        view="AP" if rng.random() < 0.35 else "PA",
        findings=Findings(nodule=nodule, effusion=effusion, cardiomegaly=cardiomegaly),
        technique=Technique(
            syntax=SYNTAXES[number % len(SYNTAXES)],
            bits_stored=BITS_STORED[number % len(BITS_STORED)],
            monochrome1=number % 2 == 1,
            slope=(1.0, 0.5, -1.0)[number % 3],
            modality="DX" if number % 4 else "CR",
        ),
    )


def draw_series(output: Path, *, count: int, seed: int, short_side: int = 640) -> Iterator[FilmPlan]:
    """Draw and write film after film, yielding each plan when its files are there; `labels.csv` comes last.

    Raises LaunchError where the numbers make no series, or the folder holds one already.
    """
    if count < 1 or seed < 0 or short_side < SMALLEST_SIDE:
        raise LaunchError(
            f"count {count}, seed {seed}, short side {short_side}: give at least 1 film, a seed of 0 or more, and a "
            f"short side of at least {SMALLEST_SIDE} pixels."
        )
    labels = output / "labels.csv"
    if labels.exists():
        raise LaunchError(
            f"{labels}: this folder holds a finished series. Give another --output, or remove the folder."
        )
    plans = plan_series(count, seed=seed)
    return _draw(output, plans=plans, seed=seed, short_side=short_side)


def _draw(output: Path, *, plans: tuple[FilmPlan, ...], seed: int, short_side: int) -> Iterator[FilmPlan]:
    for name in ("dicom", "masks"):
        (output / name).mkdir(parents=True, exist_ok=True)
        for left_over in (output / name).glob("phantom_*"):  # of a series that was interrupted
            left_over.unlink()
    for plan in plans:
        draw_film(output, plan=plan, seed=seed, short_side=short_side)
        yield plan
    _write_labels(output / "labels.csv", plans=plans)


def draw_film(output: Path, *, plan: FilmPlan, seed: int, short_side: int) -> None:
    """One film and its mask; a function of (seed, number) and the plan, whatever was drawn before."""
    rng = np.random.default_rng([seed, 1, plan.number])
    phantom = render(draw_body(rng, view=plan.view, findings=plan.findings), short_side=short_side)
    identification = Identification(series=f"seed {seed}", patient=plan.patient, number=plan.number, view=plan.view)
    write_film(output / plan.file, phantom.film, technique=plan.technique, identification=identification)
    Image.fromarray(phantom.mask).save(output / plan.mask)


def _write_labels(path: Path, *, plans: tuple[FilmPlan, ...]) -> None:
    with closing(io.StringIO(newline="")) as text:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for plan in plans:
            found = plan.findings
            labels = (int(label) for label in (found.nodule, found.effusion, found.cardiomegaly))
            table.writerow((plan.file, plan.patient, plan.view, plan.split, *labels, plan.mask))
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text.getvalue(), encoding="utf-8")
    partial.replace(path)
