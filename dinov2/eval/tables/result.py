"""An `Outcome` -> a `Result`: what was done, and every score of every split that was predicted.

In: an `Outcome`, and others that stand beside it (a floor, a control). Out: scorecards per split.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dinov2.errors import ConfigError
from dinov2.eval.outcome import Outcome, Predictions, Segmentations
from dinov2.eval.scores import Scorecard, score

Said = Predictions | Segmentations


@dataclass(frozen=True, kw_only=True)
class Result:
    """A probe's run and its scores."""

    outcome: Outcome  # of a result beside another, read from a file: without predictions
    cards: Mapping[str, Scorecard]  # val, test: those that are there
    beside: tuple["Result", ...] = ()

    @property
    def split(self) -> str:
        """The one that counts: test, or val where there is no test."""
        return "test" if "test" in self.cards else "val"

    @property
    def card(self) -> Scorecard:
        return self.cards[self.split]

    @property
    def main(self) -> str:
        """The score that is shown first."""
        named = self.outcome.metric.removeprefix("macro_").removeprefix("mean_")
        names = self.card.names()
        return named if named in names else next((one for one in ("auroc", "dice", *names) if one in names), "auroc")

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.class_name for one in self.card.scores if not one.column))[:-1]


def said_of(outcome: Outcome) -> dict[str, Said]:
    """Predictions by split."""
    return {name: said for name, said in (("val", outcome.val), ("test", outcome.test)) if said is not None}


def result_of(
    outcome: Outcome,
    *,
    beside: Sequence[Outcome] = (),
    draws: int,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Scores every split; by group only the one that counts. `say` is told what is being scored.

    Raises ConfigError where nothing was predicted, or something beside it has other classes.
    """
    all_said = said_of(outcome)
    if not all_said:
        raise ConfigError(f"{outcome.probe}: neither val nor test was predicted, so there is nothing to score.")
    cards = {}
    for name, said in all_said.items():
        say(f"{outcome.probe}, {name}")
        counts = name == "test" or "test" not in all_said
        cards[name] = score(
            said if counts else replace(said, groups={}), validation=outcome.val, draws=draws, seed=seed
        )
    made = Result(outcome=outcome, cards=cards)
    others = tuple(result_of(other, draws=draws, seed=seed, say=say) for other in beside)
    for other in others:
        if other.classes != made.classes:
            raise ConfigError(
                f"{other.outcome.probe} has the classes {list(other.classes)} and {outcome.probe} "
                f"{list(made.classes)}. Only results of the same classes stand beside each other."
            )
    return replace(made, beside=others)
