"""The logger of Weights & Biases: a run on its server, or files in RUN/logs/wandb that `wandb sync` sends later.

In: numbers, words, pictures. Out: what wandb sends to the server that WANDB_BASE_URL names, by default api.wandb.ai:
curves, the configuration with its paths, warnings, and pictures where they are asked for. Code, the commit, the
screen's text and wandb's own figures of the machine are switched off. Without a key it works offline.

A run that continues keeps its name there. Points are never sent twice: those up to the last one sent are the same
numbers again.
"""

import netrc
import os
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlparse

from dinov2.train.loggers.kept import Kept
from dinov2.train.loggers.logger import Ending, Picture, Place

MODULE, EXTRA = "wandb", "wandb"
SERVER = "https://api.wandb.ai"
START_SECONDS = 20.0  # that the server may take to answer
FINISH_SECONDS = 20.0  # that it may take for the rest at the end; what it has not got lies in RUN/logs/wandb
EXIT_CODES: dict[Ending, int] = {"finished": 0, "stopped": 0, "failed": 1}


def stays_here(place: Place) -> bool:
    """Whether what it is given stays on this machine's disks; what lies here offline is there to be sent."""
    del place
    return False


class WeightsAndBiases:
    """See the module."""

    def __init__(self, place: Place, *, after_step: int) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb = wandb
        limits = {"finish_timeout": FINISH_SECONDS} if "finish_timeout" in wandb.Settings.model_fields else {}
        self._kept = Kept(place.folder, MODULE)
        run_id = self._kept.run_id or uuid.uuid4().hex[:8]
        self._run: Any = wandb.init(
            project=place.project,
            name=place.run_name,
            id=run_id,
            resume="allow",
            dir=str(place.folder),
            config=dict(place.settings),
            mode=None if os.environ.get("WANDB_MODE") or has_key() else "offline",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_stats=True,
                x_disable_meta=True,
                init_timeout=START_SECONDS,
                **limits,
            ),
        )
        self._kept.remember(run_id=run_id)
        del after_step  # what was told counts, not where the run goes on
        self._told = max(self._kept.step, self._run.step - 1)
        self._told_before = place.told_before

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        if step <= self._told:
            return
        self._run.log(dict(values), step=step)
        self._told = step
        self._kept.remember(step=step)

    def words(self, step: int, text: str) -> None:
        if step > self._told_before:
            self._run.alert(title=f"step {step}", text=text, level="WARN")

    def picture(self, step: int, name: str, picture: Picture) -> None:
        # wandb takes nothing for a step that is past.
        if step > self._told_before and step >= self._told:
            self._run.log({name: self._wandb.Image(picture)}, step=step)

    def close(self, ending: Ending) -> None:
        self._run.finish(exit_code=EXIT_CODES[ending])


def has_key() -> bool:
    """Whether wandb may speak to its server; it would ask at the keyboard otherwise."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or SERVER).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
