"""Runs every command of docs/start.md in a fresh clone, as a newcomer would, and writes what was printed to a page.

python scripts/docs_log.py                 clones what is committed, makes its environment, runs all: docs/start_log.md
python scripts/docs_log.py --output F.md   writes the log somewhere else
python scripts/docs_log.py --clone DIR     in a clone made before, whose environment is there already; the log says so

The clone and what is made in it lie in a temporary folder and are gone afterwards. A log that would name this machine,
its user, a host or a folder outside the clone is not written.
"""

import argparse
import datetime
import getpass
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.docs.page import Block, blocks_of  # noqa: E402  (the repository is not installed where this runs)

MOST_LINES = 48  # of one command's output; of more, the middle is left out and counted
# What somebody has in a terminal of their own, and nothing that would lead the clone to another environment or folder.
KEPT = re.compile(
    r"HOME|PATH|OMP_NUM_THREADS|LANG|LC_.*|TERM|TMPDIR|TZ|(PIP|SSL|CURL|REQUESTS)_.*|(http|https|no|HTTP|HTTPS|NO)_(proxy|PROXY)"
)
OUTSIDE = re.compile(r"(?<![\w.~])/(?:home|root|tmp|work|Users|mnt|opt|var|srv|data|scratch)/[^\s,;:'\"]*")
HOST = re.compile(r"(?:https?|file|ssh|git)://[^\s'\"]+")
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
INTRODUCTION = """# A newcomer's log

Every command of [Five minutes](start.md), run from a fresh clone, as printed; where an output is long its middle is
left out, and how much is said. Written by `bash scripts/docs.sh log`.

| | |
|---|---|
| when | {when} |
| what | commit {commit}, version {version} |
| where | {machine}, Python {python}; {busy} |
| how long | {minutes:.0f} minutes{note} |
"""


def main() -> int:
    """Clones, runs, writes; ends at the first command that fails, with its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "start_log.md")
    parser.add_argument("--clone", type=Path, metavar="DIR")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        clone = given.clone.resolve() if given.clone else Path(folder) / "dinov2"
        if not given.clone:
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        parts = []
        for block in blocks_of((ROOT / "docs" / "start.md").read_text()):
            print(f"{time.monotonic() - started:5.0f} s  {block.code.splitlines()[0]}", flush=True)
            code, part = run_block(block, clone=clone)
            parts.append(part)
            if code:
                print(part, file=sys.stderr)
                return code
        note = "; its environment was made before, by the same script" if given.clone else ", the environment included"
        head = introduction(clone, minutes=(time.monotonic() - started) / 60, note=note)
    log = "\n".join([head, *parts]).rstrip() + "\n"
    if private := names_of_this_machine(log):
        print(f"not written: the log would name {', '.join(private)}.", file=sys.stderr)
        return 1
    given.output.write_text(log)
    print(f"{given.output}: {len(parts)} blocks.")
    return 0


def run_block(block: Block, *, clone: Path) -> tuple[int, str]:
    """Exit code, and the block with what it printed, as Markdown."""
    environment = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    environment |= {"VIRTUAL_ENV": str(clone / ".venv"), "PATH": f"{clone}/.venv/bin:{os.environ['PATH']}"}
    environment |= {"COLUMNS": "110", "NO_COLOR": "1"}
    words = ["python", "-c", block.code] if block.language == "python" else ["bash", "-ec", block.code]
    started = time.monotonic()
    done = subprocess.run(
        words, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    seconds = time.monotonic() - started
    shown = printed(done.stdout.decode(errors="replace"), clone=clone)
    said = ["", f"```{block.language}", block.code, "```", ""]
    if shown:
        said += ["```text", shown, "```", ""]
    return done.returncode, "\n".join([*said, f"{seconds:.0f} s, exit code {done.returncode}."])


def printed(output: str, *, clone: Path) -> str:
    """What a terminal shows at the end, without this machine's own paths."""
    lines = [line.rstrip().rpartition("\r")[2] for line in COLOURS.sub("", output).split("\n")]
    lines = [line for line in lines if not line.startswith(("WARNING: ", "[notice]"))]  # pip's, of its own settings
    text = (
        "\n".join(lines).replace(str(clone), "~/dinov2").replace(str(clone.parent), "~").replace(str(Path.home()), "~")
    )
    lines = text.splitlines()
    if len(lines) > MOST_LINES:
        half = MOST_LINES // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half} lines ...", *lines[-half:]]
    return "\n".join(lines).strip("\n")


def names_of_this_machine(log: str) -> list[str]:
    """What a stranger need not know: folders outside the clone, hosts, this machine and who sits at it."""
    found = {*OUTSIDE.findall(log), *HOST.findall(log)}
    for name in (platform.node(), getpass.getuser()):
        if name and re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w.-])", log):
            found.add(name)
    return sorted(found)


def introduction(clone: Path, *, minutes: float, note: str) -> str:
    """When, what and where."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout.strip()
    version = re.search(r'__version__ = "(.*)"', (clone / "dinov2" / "__init__.py").read_text())
    assert version, "dinov2/__init__.py has lost its version"
    cpu = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else None
    gpu = "a GPU" if Path("/dev/nvidia0").exists() else "no GPU"
    return INTRODUCTION.format(
        when=datetime.date.today().isoformat(),
        commit=commit,
        version=version[1],
        machine=f"{os.cpu_count()} cores, {model[1].strip() if model else platform.machine()}, {gpu}",
        busy=f"{os.getloadavg()[2]:.0f} processes at once wanted a core in the last 15 minutes",
        python=platform.python_version(),
        minutes=minutes,
        note=note,
    )


if __name__ == "__main__":
    sys.exit(main())
