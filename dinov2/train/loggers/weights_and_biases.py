"""The logger of Weights & Biases: a run on its server, or files in RUN/logs/wandb that `wandb sync` sends later.

In: numbers, words, pictures. Out: what wandb sends to the server that WANDB_BASE_URL names, by default api.wandb.ai:
curves, the configuration with its paths, warnings, and pictures where they are asked for. Code, the commit, installed
packages, the machine's name, the screen's text and wandb's own figures of the machine are switched off. Without a key
it works offline.

A run that continues keeps its id. Points are never sent twice: those up to the last one sent are the same numbers
again. Offline every process writes a folder of its own, and `wandb sync` makes one run of those with one id.
"""

import errno
import netrc
import os
import uuid
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from dinov2.train.loggers.kept import Kept
from dinov2.train.loggers.logger import Ending, Picture, Place

MODULE, EXTRA = "wandb", "wandb"
FOLDER = "wandb"  # its own choice
SERVER = "https://api.wandb.ai"
SENT_FROM = "dinov2"  # instead of the machine's name
START_SECONDS = 20.0  # that the server may take to answer
FLUSH_SECONDS = 2.0  # what lies offline is behind by so much, and a killed process loses that
FINISH_SECONDS = 20.0  # that it may take for the rest at the end; what it has not got lies in RUN/logs/wandb
ENVIRONMENT = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
EXIT_CODES: dict[Ending, int] = {"finished": 0, "stopped": 0, "failed": 1}


def stays_here(place: Place) -> bool:
    """Whether what it is given stays on this machine's disks; what lies here offline is there to be sent."""
    del place
    return False


def runs_at(place: Place) -> str:
    """Which store of runs it is: all that is kept offline ends on the server, so there is one."""
    del place
    return ""


class WeightsAndBiases:
    """See the module."""

    def __init__(self, place: Place, *, after_step: int) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import wandb

        self._wandb = wandb
        self._kept = Kept(place.folder, MODULE, where=runs_at(place))
        folder = place.folder / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        check_space(folder)
        run_id = self._kept.run_id or uuid.uuid4().hex[:8]
        self._kept.remember(run_id=run_id)  # at once: what fails after this goes on with the same
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        try:
            self._run: Any = wandb.init(
                project=place.project,
                name=place.run_name,
                id=run_id,
                resume="allow",
                dir=str(place.folder),
                config=dict(place.settings),
                mode=mode,
                settings=wandb.Settings(**settings_for(wandb.Settings.model_fields)),
            )
        except Exception:
            wandb.teardown(exit_code=1)  # its own process still holds the id, and would refuse it the next time
            raise
        del after_step  # what was told counts, not where the run goes on
        self._told = max(self._kept.step, self._run.step - 1)
        self._told_before, self._folder = place.told_before, folder

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        if step <= self._told:
            return
        if self._run.offline:
            check_space(self._folder)
        self._run.log(dict(values), step=step, commit=True)  # else it keeps the step to itself until the next
        self._told = step
        self._kept.remember(step=step)

    def words(self, step: int, text: str) -> None:
        if step > self._told_before:
            self._run.alert(title=f"step {step}", text=text, level="WARN")

    def picture(self, step: int, name: str, picture: Picture) -> None:
        if step > max(self._told_before, self._told):  # wandb takes nothing for a step that is past
            self._run.log({name: self._wandb.Image(picture)}, step=step, commit=False)

    def close(self, ending: Ending) -> None:
        self._run.finish(exit_code=EXIT_CODES[ending])


def check_space(folder: Path) -> None:
    """For wandb's own process, which writes, does not tell.  Raises OSError where the disk is full."""
    if not os.statvfs(folder).f_bavail:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def settings_for(known: Container[str]) -> dict[str, Any]:
    """What wandb is not to do, in the words that the installed version knows."""
    settings = {
        "silent": True,
        "console": "off",
        "disable_code": True,
        "disable_git": True,
        "host": SENT_FROM,
        "x_disable_stats": True,
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "x_save_requirements": False,
        "x_transaction_log_flush_interval": FLUSH_SECONDS,
        "init_timeout": START_SECONDS,
        "finish_timeout": FINISH_SECONDS,
        "reinit": "create_new",  # beside a run that the caller's program may have open
    }
    return {name: value for name, value in settings.items() if name in known}


def has_key() -> bool:
    """Whether wandb may speak to its server; it would ask at the keyboard otherwise."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or SERVER).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
