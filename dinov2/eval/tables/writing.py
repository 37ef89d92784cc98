"""A result's folder: written whole or not at all, and read again.

In: an `Outcome`. Out: result.json (everything but predictions), scores.csv, predictions.parquet, page.html, page.png.

result.json comes last and names the hash of the predictions, so a folder with a result.json is a whole result; other
files of the folder are left alone.
"""

import csv
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from dinov2 import __version__
from dinov2.errors import ConfigError, Dinov2Error
from dinov2.eval.making import making
from dinov2.eval.outcome import Outcome
from dinov2.eval.tables.plain import from_plain, to_plain
from dinov2.eval.tables.predictions import read_predictions, write_predictions
from dinov2.eval.tables.result import Result, result_of, said_of
from dinov2.eval.tables.sheet import Sheet, sheet_of

FORMAT = "dinov2 eval result"
VERSION = 1
RESULT, SCORES, PREDICTIONS, PAGE, PICTURE = "result.json", "scores.csv", "predictions.parquet", "page.html", "page.png"
CSV_COLUMNS = ("split", "class", "group", "score", "value", "low", "high", "num_positive", "num_negative")


@dataclass(frozen=True, kw_only=True)
class Written:
    """A result on disk."""

    folder: Path
    result: Result
    sheet: Sheet

    @property
    def summary(self) -> str:
        """What a person reads, as Markdown."""
        return self.sheet.markdown()

    @property
    def page(self) -> Path:
        return self.folder / PAGE


def write_result(
    outcome: Outcome,
    folder: Path,
    *,
    beside: Sequence[Outcome] = (),
    draws: int,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> Written:
    """Score an outcome and write it with what stands beside it; a result that is there is replaced.

    Raises:
        ConfigError: nothing was predicted; a result beside it has other classes.
        Dinov2Error: the folder cannot be written.
    """
    from dinov2.eval.tables.page import page_of
    from dinov2.eval.tables.picture import draw_picture

    result = result_of(outcome, beside=beside, draws=draws, seed=seed, say=say)
    sheet = sheet_of(result)
    say("tables and curves")
    with ExitStack() as stack:
        try:
            partial = stack.enter_context(making(folder, name="result"))
        except OSError as error:
            raise Dinov2Error(f"{folder}: cannot be written ({error.strerror}). Give another --output-dir.") from error
        write_predictions(said_of(outcome), partial / PREDICTIONS)
        _write_scores(result, partial / SCORES)
        (partial / PAGE).write_text(page_of(result), encoding="utf-8")
        draw_picture(result, partial / PICTURE)
        _write_record(result, partial)
        (folder / RESULT).unlink(missing_ok=True)  # from here until the last move the folder holds no result
        for name in (SCORES, PREDICTIONS, PAGE, PICTURE, RESULT):
            (partial / name).replace(folder / name)
    return Written(folder=folder, result=result, sheet=sheet)


def read_result(folder: Path) -> Result:
    """With its predictions.

    Raises:
        ConfigError: no result, an unfinished or damaged one, or one of another version.
    """
    again = "Run `dinov2 eval` again with --overwrite."
    path = folder / RESULT
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{folder}: holds no result ({path.name} cannot be read). Name a folder that `dinov2 eval` wrote."
        ) from error
    try:
        record = json.loads(content)
        if record.get("format") != FORMAT or record.get("version") != VERSION:
            raise ConfigError(
                f"{path}: format {record.get('format')!r}, version {record.get('version')!r}; this is dinov2 "
                f"{__version__}, which reads {FORMAT!r} {VERSION}. {again}"
            )
        if record["predictions_sha256"] != _sha256(folder / PREDICTIONS):
            raise ConfigError(f"{folder}: {PREDICTIONS} is not the one that {RESULT} was written with. {again}")
        result = from_plain(record)
        said = read_predictions(folder / PREDICTIONS)
        if set(said) != set(result.cards):
            raise ValueError("other splits")
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder}: the result is damaged ({type(error).__name__}: {error}). {again}") from error
    return replace(result, outcome=replace(result.outcome, val=said.get("val"), test=said.get("test")))


def _write_record(result: Result, folder: Path) -> None:
    record = {
        "format": FORMAT,
        "version": VERSION,
        "dinov2": __version__,
        "predictions_sha256": _sha256(folder / PREDICTIONS),
        **to_plain(result),
    }
    (folder / RESULT).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _write_scores(result: Result, path: Path) -> None:
    """Long form; an empty cell where there is no number. The group is COLUMN=VALUE, empty for all pictures."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(CSV_COLUMNS)
        for split, card in result.cards.items():
            for one in card.scores:
                numbers = ("" if math.isnan(value) else repr(value) for value in (one.value, one.low, one.high))
                group = f"{one.column}={one.group}" if one.column else ""
                counts = ("" if count is None else count for count in (one.num_positive, one.num_negative))
                rows.writerow((split, one.class_name, group, one.name, *numbers, *counts))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
