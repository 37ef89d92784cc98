"""A `Result` -> a table of text with its remarks, as a terminal and Markdown show it.

In: a `Result`, or several. Out: a `Sheet`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dinov2.eval.outcome import Outcome
from dinov2.eval.scores import MACRO, Score
from dinov2.eval.tables.result import Result

WORDS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "sensitivity_at_specificity": "sens. at spec. 0.9",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced acc.",
    "calibration_error": "calib. error",
    "dice": "Dice",
    "iou": "IoU",
    "pooled_dice": "Dice, pooled",
    "pooled_iou": "IoU, pooled",
    "hausdorff95": "HD95, px",
}
SHORT = ("auprc", "f1", "iou", "hausdorff95")  # beside the main score, where there is little room


@dataclass(frozen=True)
class Sheet:
    """Text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()

    def markdown(self) -> str:
        """As a Markdown table, remarks below."""
        lines = [_line(self.header), _line(["---", *("---:" for _ in self.header[1:])])]
        lines += [_line(row) for row in self.rows]
        return "\n".join([f"**{self.title}**", "", *lines, "", *(f"- {remark}" for remark in self.remarks)]) + "\n"


def names_of_beside(result: Result) -> tuple[str, ...]:
    """What stands beside, by its probe; with its backbone where two are of one probe."""
    probes = [other.outcome.probe for other in (result, *result.beside)]
    return tuple(
        one.outcome.probe if probes.count(one.outcome.probe) == 1 else f"{one.outcome.probe} {one.outcome.backbone}"
        for one in result.beside
    )


def beside_score(other: Result, *, split: str, name: str, class_name: str) -> Score | None:
    """Of the same split and class."""
    card = other.cards.get(split)
    return None if card is None else card.find(name, class_name)


def sheet_of(result: Result) -> Sheet:
    """A row per class and one over all: the main score with its interval, a few more, and what stands beside."""
    card, main = result.card, result.main
    more = [name for name in SHORT if name in card.names() and name != main]
    header = ("class", "pictures", f"{WORDS[main]} (95 %)", *(WORDS[name] for name in more), *names_of_beside(result))
    rows = []
    for class_name in (*result.classes, MACRO):
        first = card.find(main, class_name)
        cells = [first, *(card.find(name, class_name) for name in more)]
        cells += [beside_score(other, split=result.split, name=main, class_name=class_name) for other in result.beside]
        count = card.num_pictures if class_name == MACRO else (first.num_positive if first else 0)
        name = "mean of classes" if class_name == MACRO else class_name
        rows.append((name, f"{count:,}", with_range(first), *(number(cell) for cell in cells[1:])))
    return Sheet(title_of(result), header, tuple(rows), tuple(_remarks(result)))


def title_of(result: Result) -> str:
    """What was judged, on what."""
    card, outcome = result.card, result.outcome
    return (
        f"{outcome.probe} on {dataset_of(outcome)}, {result.split}: {card.num_pictures:,} pictures of "
        f"{card.num_patients:,} patients; backbone {outcome.backbone}"
    )


def dataset_of(outcome: Outcome) -> str:
    """Its name without that of the split that was fitted on."""
    return outcome.dataset.removesuffix(", train")


def number(score: Score | None) -> str:
    """Three digits; of pixels two after the point; empty where there is none."""
    return "" if score is None else figure(score.value, score.name)


def figure(value: float, name: str = "") -> str:
    """A score's value as text."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.2f}" if name == "hausdorff95" else f"{value:.3f}"


def with_range(score: Score | None) -> str:
    """Value and interval."""
    if score is None or math.isnan(score.low):
        return number(score)
    return f"{number(score)} ({figure(score.low, score.name)} to {figure(score.high, score.name)})"


def ranked(results: Sequence[Result], *, folders: Sequence[str], name: str) -> Sheet:
    """Several results in one table, the best first."""
    from dinov2.eval.scores.replicates import LESS_IS_BETTER

    made = []
    for folder, result in zip(folders, results, strict=True):
        found = result.card.find(name)
        value = found.value if found is not None and math.isfinite(found.value) else -math.inf
        worth = -value if name in LESS_IS_BETTER and math.isfinite(value) else value
        outcome = result.outcome
        cells = (
            folder,
            outcome.probe,
            outcome.backbone,
            outcome.dataset,
            result.split,
            f"{result.card.num_pictures:,}",
        )
        made.append((worth, (*cells, with_range(found))))
    made.sort(key=lambda pair: -pair[0])
    header = ("result", "probe", "backbone", "dataset", "split", "pictures", f"{WORDS[name]} (95 %)")
    return Sheet(f"{len(made)} results by {WORDS[name]}", header, tuple(row for _, row in made))


def _remarks(result: Result) -> list[str]:
    outcome, card = result.outcome, result.card
    lines = []
    whole = [card.find(name) for name in ("accuracy", "balanced_accuracy")]
    told = [f"{WORDS[one.name]} {with_range(one)}" for one in whole if one is not None and math.isfinite(one.value)]
    if told:
        lines.append(", ".join(told))
    if outcome.chosen and len(outcome.trail) > 1:
        chosen = ", ".join(f"{key} {value}" for key, value in outcome.chosen.items())
        lines.append(f"chosen on validation by {outcome.metric} out of {len(outcome.trail)}: {chosen}")
    lines.append(f"fitted on {outcome.fitted_on}; intervals from {card.draws:,} draws of patients (seed {card.seed})")
    if result.split == "val" and len(outcome.trail) > 1:
        lines.append("validation pictures chose the settings, so these scores are too good; give a test split.")
    lines += card.remarks
    lines += [
        f"{WORDS[gap.name]} by {gap.column}: {gap.best} above {gap.worst} by {gap.value.value:.3f} "
        f"({gap.value.low:.3f} to {gap.value.high:.3f})" + _over(gap.classes, result.classes) + _without(gap.left_out)
        for gap in card.gaps
        if gap.class_name == MACRO and gap.name == result.main
    ]
    compared = {gap.column for gap in card.gaps if gap.class_name == MACRO and gap.name == result.main}
    columns = dict.fromkeys(size.column for size in card.groups)
    lines += [f"by {column}: {why_no_gap(result)}" for column in columns if column not in compared]
    return lines


def why_no_gap(result: Result) -> str:
    """Of the main score."""
    told = (result.card.find(result.main, name) for name in result.classes)
    if not any(one is not None and math.isfinite(one.value) for one in told):
        return f"no gap, as {WORDS[result.main]} is not told class by class"
    return "no gap, as fewer than two groups have enough pictures with and without a class"


def _over(some: Sequence[str], classes: Sequence[str]) -> str:
    return "" if len(some) == len(classes) else f", over {', '.join(some)}"


def _without(left_out: Sequence[str]) -> str:
    return f"; too small: {', '.join(left_out)}" if left_out else ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
