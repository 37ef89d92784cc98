"""The real timm, torchvision, open_clip and torchxrayvision, for tests: in a process of their own.

In: a function at the top of a test module, and words for it. Out: what it returns (anything that JSON holds).

torchvision's wheels are bound to one torch and one CUDA. `scripts/environment.sh` lays the four libraries in a folder
that is not on the path, for a torchvision that cannot load its extension would break the picture processors of
transformers. In the process that is started here the folder comes first on the path, and where the extension does not
load, the operators that it would define are declared, without code behind them: networks and transforms in Python need
none of them.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(sys.prefix) / "torchvision-libraries"
NEEDED = ("timm", "torchvision", "open_clip", "torchxrayvision")
ROOT = Path(__file__).parents[1]
RESULT = "result of the function: "
REGISTERED = re.compile(r'register_fake\("torchvision::(\w+)"\)')


def absent() -> str:
    """Why they cannot be had here, in one sentence; nothing where they can."""
    if FOLDER.is_dir():
        return ""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)}: not installed, and no folder {FOLDER} (bash scripts/test.sh makes it)" * bool(
        missing
    )


def with_them(function: Callable[..., Any], *words: str | Path) -> Any:
    """Runs `function(*words)`, every word a string, where these libraries can be imported; skips where they are absent.

    `function` stands at the top of an importable module, and its assertions are those of the test that calls this.
    """
    if reason := absent():
        pytest.skip(reason)
    call = [sys.executable, "-m", "tests.torchvision_libraries", function.__module__, function.__name__]
    done = subprocess.run(
        [*call, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{function.__name__}, in a process of its own:\n{done.stdout}{done.stderr}", pytrace=False)
    return json.loads(done.stdout.rpartition(RESULT)[2])


def load_them() -> None:
    """Makes the four importable in this process."""
    if FOLDER.is_dir():
        sys.path.insert(0, str(FOLDER))
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # "operator torchvision::nms does not exist"
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_operators()
        importlib.import_module("torchvision")


def _declare_operators() -> None:
    import torch

    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "DEF")
    for name in REGISTERED.findall(source):
        library.define(f"{name}(Tensor x) -> Tensor")
    _declare_operators.library = library  # type: ignore[attr-defined]  # declarations end with this object


if __name__ == "__main__":
    load_them()
    module, function, *words = sys.argv[1:]
    returned = getattr(importlib.import_module(module), function)(*words)
    print(RESULT + json.dumps(returned))
