"""What the tasks of these tests run: a function of words that gives an exit code, as the command line is."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

INTERRUPTED = 130


def command(words: Sequence[str]) -> int:
    """`write FILE`, `end CODE`, `world FOLDER`, or `sleep FILE`, which ends as after Ctrl-C."""
    match words:
        case ["write", path]:
            Path(path).write_text("written")
        case ["end", code]:
            return int(code)
        case ["world", folder]:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
            Path(folder, os.environ["RANK"]).write_text(" ".join(os.environ[name] for name in names))
            print(f"process {os.environ['RANK']} was here")
        case ["sleep", path]:
            try:
                Path(path).write_text(str(os.getpid()))
                time.sleep(120)
            except KeyboardInterrupt:
                Path(path).write_text("ended in good order")
                return INTERRUPTED
    return 0
