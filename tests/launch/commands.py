"""What the tasks of these tests run: a function of words that gives an exit code, as the command line is."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

INTERRUPTED = 130


def command(words: Sequence[str]) -> int:
    """`write FILE`, `end CODE`, or `sleep FILE`, which writes once it sleeps and ends as commands do after Ctrl-C."""
    match words:
        case ["write", path]:
            Path(path).write_text("written")
        case ["end", code]:
            return int(code)
        case ["sleep", path]:
            try:
                Path(path).write_text(str(os.getpid()))
                time.sleep(120)
            except KeyboardInterrupt:
                Path(path).write_text("ended in good order")
                return INTERRUPTED
    return 0
