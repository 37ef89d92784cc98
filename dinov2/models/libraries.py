"""Libraries that only some backbones need: loaded when asked for, or refused in one sentence.

In: names. Out: an attribute of the library; the errors of what it does, as WeightsError.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dinov2.errors import WeightsError

PACKAGES = {
    "transformers": "transformers",
    "huggingface_hub": "huggingface_hub",
    "timm": "timm",
    "open_clip": "open_clip_torch",
    "torchvision": "torchvision",
    "torchxrayvision": "torchxrayvision",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
}
"""Import name -> what pip calls it."""


def library_part(library: str, *path: str, wanted_by: str) -> Any:
    """`library`, or what lies at `path` in it.

    Raises WeightsError in one sentence where the library is absent (ImportError), where a file of it cannot be loaded
    (OSError), and where it refuses this torch (RuntimeError); some libraries do so only when a part is asked for.
    """
    try:
        found: Any = importlib.import_module(library)
        for part in path:
            found = getattr(found, part)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise WeightsError(
            f"{wanted_by}: needs the library {library}, which cannot be loaded here ({first_line(error)}); "
            f"pip install -U {PACKAGES[library]}"
        ) from error
    return found


@contextmanager
def library_errors(what: str, *, hint: str) -> Iterator[None]:
    """Whatever a library raises while it opens weights, as one WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # each library has its own, some raise Exception itself
        raise WeightsError(f"{what}: cannot be opened ({first_line(error)}). {hint}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' bar and its account of names that it lacks or does not use, which are errors here."""
    theirs = library_part("transformers", "utils", "logging", wanted_by="transformers")
    level, with_bar = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if with_bar:
            theirs.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
