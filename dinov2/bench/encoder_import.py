"""What importing costs: seconds in fresh processes, and whether torch came with it.

In: statements, and how often. Out: a row for each that can be imported here.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from dinov2.errors import Dinov2Error

STATEMENTS = ("import dinov2", "from dinov2 import Encoder", "from transformers import AutoImageProcessor, AutoModel")
NEEDED = "import dinov2"  # where another's library is absent, its row is left out
PROGRAM = """
import sys, time
before, started = set(sys.modules), time.perf_counter()
{statement}
seconds = time.perf_counter() - started
import json
told = {{"seconds": seconds, "modules": len(set(sys.modules) - before), "torch": "torch" in sys.modules}}
print(json.dumps(told))
"""


def measure_imports(statements: Sequence[str], *, repeats: int) -> list[dict[str, Any]]:
    """Seconds of each statement, the median of `repeats` processes; the first, which reads the files, is not given."""
    rows = []
    for statement in statements:
        told = [_in_fresh_process(statement) for _ in range(repeats + 1)]
        if told[0] is None:
            continue
        seconds = [found["seconds"] for found in told[1:] if found is not None]
        last = told[-1] or {}
        rows.append(
            {
                "statement": statement,
                "seconds": statistics.median(seconds),
                "seconds_all": seconds,
                "torch": last["torch"],
                "modules": last["modules"],
            }
        )
    return rows


def _in_fresh_process(statement: str) -> dict[str, Any] | None:
    """None where it cannot be imported here."""
    words = [sys.executable, "-c", PROGRAM.format(statement=statement)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told
    if statement.startswith(NEEDED):
        raise Dinov2Error(f"`{statement}` fails in a new process: {done.stderr.strip().splitlines()[-1]}")
    return None
