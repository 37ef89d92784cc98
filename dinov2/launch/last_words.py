"""How a run that is over ended, in its own words.

In: a run's folder. Out: whether it failed, and its last words: from the log of its job where it was submitted, from its
own log where it was not.
"""

import re
from pathlib import Path

from dinov2.launch.records import newest_jobs
from dinov2.launch.tails import last_lines

OURS = "dinov2 train: "
BEGINS = re.compile(r"submitit INFO .* Starting with ")
ERROR = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit): ")
LOGGED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (?P<level>[A-Z]+) (?P<text>.*)")
NO_FAULT = ("interrupted.",)
SUBMITITS = "the command ended with exit code"
LONGEST = 300


def last_words(run: Path) -> tuple[bool, str]:
    """(failed, words); a run that was stopped, or killed without a word, has not failed."""
    own = run / "logs" / "train.log"
    job = newest_jobs([run]).get(run)
    if job is not None and _time(job.log) >= _time(own):
        words = _of_job(last_lines(job.log))
        if words:
            return True, words
    return _of_log(last_lines(own))


def _of_job(lines: list[str]) -> str:
    """The message that the last start of a job ended with; empty where it ended without one."""
    starts = [number for number, line in enumerate(lines) if BEGINS.search(line)]
    lines = lines[starts[-1] :] if starts else lines
    for line in reversed(lines):
        if line.startswith(OURS) and line.removeprefix(OURS) not in NO_FAULT:
            return line.removeprefix(OURS)[:LONGEST]
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        said = [line for line in lines if ERROR.match(line) and SUBMITITS not in line]
        return said[-1][:LONGEST] if said else "ended with a traceback"
    return ""


def _of_log(lines: list[str]) -> tuple[bool, str]:
    records = [found for line in lines if (found := LOGGED.match(line))]
    if not records:
        return False, ""
    last = records[-1]
    if last["level"] in ("ERROR", "CRITICAL"):
        return True, last["text"][:LONGEST]
    return False, last["text"][:LONGEST] if last["text"].startswith("stopped") else ""


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
