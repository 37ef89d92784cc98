"""One file -> its pictures, in a worker process. Nothing that happens to one file is seen by another.

In: a `Task`: where the file is, and what all files of a run share. Out: an `Outcome`, which is plain data: pictures
under partial names with their manifest rows, or a reason. Exceptions are turned into reasons here; only a disk that
takes nothing more is raised.
"""

import hashlib
import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dinov2.config.preprocess import PreprocessConfig
from dinov2.errors import DicomRejected
from dinov2.preprocess.decode.film import OpenFilm, open_film
from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.quality import filters
from dinov2.preprocess.quality.checks import remarks
from dinov2.preprocess.quality.perceptual import perceptual_hash
from dinov2.preprocess.radiograph import Header, Radiograph
from dinov2.preprocess.reasons import Flag, Reason
from dinov2.preprocess.render.geometry import picture_spacing
from dinov2.preprocess.render.grey import Picture as Grey
from dinov2.preprocess.render.grey import png_bytes, to_eight_bits
from dinov2.preprocess.render.picture import render
from dinov2.preprocess.work.identity import Identity
from dinov2.preprocess.work.outcome import Outcome, Picture, digest_of, partial_path
from dinov2.preprocess.work.places import image_path


@dataclass(frozen=True)
class Workshop:
    """What all files of a run share."""

    config: PreprocessConfig
    identity: Identity
    partial: Path  # the folder of pictures that are not committed yet


@dataclass(frozen=True)
class Task:
    """What a worker needs for one file."""

    name: str  # HMAC of the relative path
    source: Source
    workshop: Workshop
    known: bytes | None = None  # SHA-256 of the content that was converted before; the same content is not again


def convert_file(task: Task) -> Outcome:
    """Read, judge, turn upright, resample, map to grey and leave each picture at its `partial_path`.

    Raises OSError only where a picture cannot be written.
    """
    config = task.workshop.config
    try:
        data = task.source.read(max_bytes=config.limits.max_file_bytes)
    except DicomRejected as error:
        return _rejected(error)
    except OSError as error:
        return Outcome(
            reason=Reason.UNREADABLE,
            message=f"the file cannot be read ({error.strerror or 'damaged'}). Mend its permissions or copy it again.",
        )
    except MemoryError:
        return _too_much_memory(config)
    content = hashlib.sha256(data).digest()
    if content == task.known:
        return Outcome(unchanged=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries remark on a damaged file may hold element values
            outcome = _Film(task, open_film(data, policy=config.decode, limits=config.limits)).convert()
    except DicomRejected as error:
        outcome = _rejected(error)
    except MemoryError:
        outcome = _too_much_memory(config)
    except _DiskRefuses as error:
        raise error.reason from None
    except Exception as error:  # a damaged file met code that did not expect it: that file is lost, the run is not
        outcome = Outcome(
            reason=Reason.UNREADABLE,
            message=f"the file could not be converted ({type(error).__name__}). Exclude it, and report it.",
        )
    return replace(outcome, content=content)


class _DiskRefuses(Exception):
    """The output takes nothing more: told apart from what a decoder may raise."""

    def __init__(self, reason: OSError) -> None:
        super().__init__()
        self.reason = reason


class _Film:
    """One opened film on its way to pictures."""

    def __init__(self, task: Task, film: OpenFilm) -> None:
        self.name, self.source, self.film = task.name, task.source, film
        self.config, self.identity, self.partial = (
            task.workshop.config,
            task.workshop.identity,
            task.workshop.partial,
        )

    def convert(self) -> Outcome:
        """All the frames that are wanted, or none: a film of which a part is damaged is not to be trusted."""
        header = self.film.header
        flags = filters.check(header, policy=self.config.filters)
        filters.refuse_flagged(flags, policy=self.config.filters)
        frames = range(header.num_frames if self.config.decode.multi_frame == "all" else 1)
        pictures: list[Picture] = []
        suspect = False
        try:
            for frame in frames:
                picture, is_suspect = self._picture(frame, header_flags=flags)
                pictures.append(picture)
                suspect |= is_suspect
        except BaseException:
            for frame in frames[: len(pictures) + 1]:
                partial_path(self.partial, name=self.name, frame=frame + 1).unlink(missing_ok=True)
            raise
        originals = self.config.privacy.crosswalk
        return Outcome(
            film=self._film_id(),
            suspect=suspect,
            pixels=digest_of(pictures),
            pictures=tuple(pictures),
            patient=header.patient_id if originals else "",
            study=header.study_uid if originals else "",
            image_uid=header.image_uid if originals else "",
        )

    def _picture(self, frame: int, *, header_flags: tuple[str, ...]) -> tuple[Picture, bool]:
        film = self.film.frame(frame)
        levels = render(film, config=self.config)
        small = to_eight_bits(levels)
        found = (*header_flags, *film.flags, *remarks(film, small, policy=self.config.quality))
        flags = tuple(str(flag) for flag in Flag if flag in found)  # each once, in the order of the documentation
        filters.refuse_flagged(flags, policy=self.config.filters)
        content = png_bytes(levels)
        _write(partial_path(self.partial, name=self.name, frame=frame + 1), content)
        image_id = self._image_id(frame)
        picture = Picture(
            frame=frame + 1,
            image_id=image_id,
            sha256=hashlib.sha256(content).digest(),
            perceptual=perceptual_hash(small),
            row=json.dumps(self._row(film, levels, frame=frame, image_id=image_id, flags=flags)),
        )
        return picture, Flag.POLARITY_SUSPECT in flags

    def _film_id(self) -> str:
        return self.identity.name("image", self.film.header.image_uid or self.source.relative)

    def _image_id(self, frame: int) -> str:
        header = self.film.header
        if self.config.decode.multi_frame != "all" or header.num_frames == 1:
            return self._film_id()
        return self.identity.name("image", f"{header.image_uid or self.source.relative}\0{frame + 1}")

    def _row(
        self, film: Radiograph, levels: Grey, *, frame: int, image_id: str, flags: tuple[str, ...]
    ) -> dict[str, Any]:
        header: Header = film.header
        height, width = levels.shape
        film_height, film_width = film.pixels.shape
        spacing = picture_spacing(header.spacing_mm, film=(film_height, film_width), config=self.config.resample)
        return {
            "image": f"images/{image_path(image_id)}",
            "image_id": image_id,
            "patient": self.identity.name("patient", header.patient_id) if header.patient_id else None,
            "study": self.identity.name("study", header.study_uid) if header.study_uid else None,
            "view": header.view or None,
            "width": width,
            "height": height,
            "modality": header.modality or None,
            "manufacturer": header.manufacturer or None,
            "flags": ",".join(flags),
            "spacing_mm": f"{spacing[0]:.5g},{spacing[1]:.5g}" if spacing else None,
            "bits": film.bits_stored,
            "film_height": film_height,
            "film_width": film_width,
            "transfer_syntax": header.transfer_syntax or None,
            "frame": frame + 1 if header.num_frames > 1 else None,
        }


def _rejected(error: DicomRejected) -> Outcome:
    return Outcome(reason=str(error.reason), message=str(error))


def _too_much_memory(config: PreprocessConfig) -> Outcome:
    return Outcome(
        reason=Reason.TOO_LARGE,
        message=f"needs more than {config.limits.memory_mb} MB of memory (limits.memory_mb). Raise it if this is a "
        "film.",
    )


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    try:
        path.write_bytes(content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _DiskRefuses(error) from None
