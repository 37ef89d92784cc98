"""Runs the blocks of a page in order, in one namespace, as a reader would; a process of its own.

In: the page, and an empty folder to run it in, which gets what the snippets need. Out: a sentence for every block that
did not do what the page says, as JSON.
"""

import contextlib
import doctest
import io
import json
import os
import shlex
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from dinov2.cli import main
from tests.docs.page import Block, blocks_of
from tests.docs.stand_ins import make_work_folder

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
RESULT = "faults: "
SECONDS_TOLD = 2.0


def run_blocks(blocks: list[Block], *, work: Path) -> list[str]:
    """Faults, in words."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    faults = []
    for block in blocks:
        started = time.process_time()
        os.chdir(work / block.said.get("in", "."))
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                _run(block, namespace)
        except BaseException as error:  # a SystemExit of a command too
            told = "".join(traceback.format_exception(error))
            faults.append(f"line {block.line}: {block.code}\n{printed.getvalue()}{told}")
            continue
        if fault := _compare(block, printed.getvalue()):
            faults.append(f"line {block.line}: {block.code}\n{fault}")
        if (seconds := time.process_time() - started) > SECONDS_TOLD:
            print(f"line {block.line}: {seconds:.1f} s of a core", file=sys.stderr)
    return faults


def _run(block: Block, namespace: dict[str, Any]) -> None:
    if block.language == "python":
        code = "\n" * (block.line - 1) + block.code  # so that a traceback names the page's own line
        exec(compile(code, "the page", "exec"), namespace)
        return
    for place, command in enumerate(block.commands, start=1):
        name, *words = shlex.split(command)
        expected = 0
        if place == len(block.commands):
            expected = int(block.said.get("exit code", 0))
            words += shlex.split(block.said.get("smaller", ""))
        assert name == "dinov2", f"{command}: the page runs another program than ours"
        code = main(words)
        assert code == expected, f"{command}: exit code {code}"


def _compare(block: Block, printed: str) -> str:
    """Empty where the block printed what the page shows; commands may say more than the page does."""
    if block.output is None:
        return f"it prints what the page does not show:\n{printed}" if block.language == "python" and printed else ""
    if doctest.OutputChecker().check_output(block.output + "\n", printed, FLAGS):
        return ""
    return f"the page shows\n{block.output}\nit printed\n{printed}"


def with_timm(page: str, work: str) -> list[str]:
    """Those blocks that need timm; called where timm can be imported."""
    return run_blocks(
        [block for block in blocks_of(Path(page).read_text()) if "with timm" in block.said], work=Path(work)
    )


def the_others(page: str, work: str) -> list[str]:
    """Every block but those that need timm, and those that are not run."""
    blocks = blocks_of(Path(page).read_text())
    chosen = [block for block in blocks if not block.said.keys() & {"with timm", "not run"}]
    return run_blocks(chosen, work=Path(work))


if __name__ == "__main__":
    make_work_folder(Path(sys.argv[2]))
    found = the_others(*sys.argv[1:])
    print(RESULT + json.dumps(found))
