"""Which libraries are here, whether they load, and whether their versions are those this package was tried with.

In: the package's own metadata, or the pyproject.toml of its source folder, so that ranges stand in one place. Out:
findings; a required library that is absent, does not load or is of another version is broken, an extra that is absent
is told with the command that brings it.
"""

import importlib
import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from dinov2 import __version__
from dinov2.config.schema import Config
from dinov2.doctor.finding import Finding, first_line

TOPIC = "versions"
IMPORTED_AS: Mapping[str, str] = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "pylibjpeg-openjpeg": "openjpeg",
    "pylibjpeg-rle": "rle",
    "pyjpegls": "jpeg_ls",
    "python-gdcm": "gdcm",
    "open-clip-torch": "open_clip",
}
"""What pip calls it -> what Python calls it, where the two differ beyond the hyphen."""
USES: Mapping[str, str] = {
    "slurm": "dinov2 submit",
    "hub": "weights by OWNER/NAME, Hugging Face folders",
    "onnx": "dinov2 export --format onnx",
    "backbones": "backbones of timm, open_clip, torchvision and torchxrayvision in dinov2 eval",
    "gpu": "runtime.attention=xformers",
    "tensorboard": "logging.loggers=[tensorboard]",
    "wandb": "logging.loggers=[wandb]",
    "mlflow": "logging.loggers=[mlflow]",
    "explore": "dinov2 explore",
}
FOR_DEVELOPERS = ("test", "docs", "dev")


def examine(_: Config) -> tuple[Finding, ...]:
    """Python, this package, every required library, every extra."""
    needs = _needs()
    if needs is None:
        why = "neither its metadata nor its pyproject.toml is there, so versions cannot be compared"
        ours = Finding(
            topic=TOPIC, name="dinov2", value=__version__, verdict="note", why=why, mend="pip install dinov2"
        )
        return (_python(""), ours)
    return (
        _python(needs.python),
        Finding(topic=TOPIC, name="dinov2", value=f"{__version__}{needs.remark}"),
        *(_library(one) for one in needs.required),
        *(_extra(name, wanted) for name, wanted in needs.extras.items() if wanted),
    )


@dataclass(frozen=True, kw_only=True)
class _Needs:
    """What the package asks for on this system."""

    python: str
    required: tuple[Requirement, ...]
    extras: Mapping[str, tuple[Requirement, ...]]
    remark: str


def _needs() -> _Needs | None:
    """By the source folder where the package runs from one, for what is installed may be another version."""
    source = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if source.is_file():
        project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
        return _Needs(
            python=project["requires-python"],
            required=_fitting(project["dependencies"], extra=""),
            extras={name: _fitting(texts, extra="") for name, texts in _for_users(project["optional-dependencies"])},
            remark=" (from its source folder)",
        )
    try:
        about = metadata.metadata("dinov2")
    except metadata.PackageNotFoundError:
        return None
    texts = about.get_all("Requires-Dist") or []
    names = dict.fromkeys(about.get_all("Provides-Extra") or (), texts)
    return _Needs(
        python=about["Requires-Python"] or "",
        required=_fitting(texts, extra=""),
        extras={name: _fitting(texts, extra=name) for name, texts in _for_users(names)},
        remark="",
    )


def _for_users(extras: Mapping[str, list[str]]) -> list[tuple[str, list[str]]]:
    return [(name, texts) for name, texts in extras.items() if name not in FOR_DEVELOPERS]


def _fitting(texts: list[str], *, extra: str) -> tuple[Requirement, ...]:
    return tuple(one for one in map(Requirement, texts) if _applies(one, extra=extra))


def _python(wanted: str) -> Finding:
    found = platform.python_version()
    fits = SpecifierSet(wanted).contains(found, prereleases=True)
    return Finding(
        topic=TOPIC,
        name="python",
        value=found,
        verdict="good" if fits else "broken",
        why="" if fits else f"this package needs {wanted}",
        mend="" if fits else "install it into an environment of a newer Python",
    )


def _applies(requirement: Requirement, *, extra: str) -> bool:
    """Whether it belongs to `extra` on this system; the empty one is what everybody needs."""
    marker = requirement.marker
    if marker is None:
        return not extra
    return marker.evaluate({"extra": extra}) and not (extra and marker.evaluate({"extra": ""}))


def _library(requirement: Requirement) -> Finding:
    """A library that everybody needs: there, of the right version, and it loads."""
    name, install = requirement.name, f"pip install '{requirement.name}{requirement.specifier}'"
    found = _version(name)
    if found is None:
        return Finding(topic=TOPIC, name=name, value="absent", verdict="broken", why="it is required", mend=install)
    if not requirement.specifier.contains(found, prereleases=True):
        why = f"this package was tried with {requirement.specifier}"
        return Finding(topic=TOPIC, name=name, value=found, verdict="broken", why=why, mend=install)
    fault = _cannot_load(name)
    if fault:
        mend = f"pip install --force-reinstall '{name}{requirement.specifier}'"
        return Finding(
            topic=TOPIC, name=name, value=found, verdict="broken", why=f"cannot be loaded: {fault}", mend=mend
        )
    return Finding(topic=TOPIC, name=name, value=found)


def _extra(name: str, wanted: tuple[Requirement, ...]) -> Finding:
    """The libraries of an extra together: all there, or the command that brings them."""
    versions = {one.name: _version(one.name) for one in wanted}
    missing = [library for library, found in versions.items() if found is None]
    odd = [f"{one.name}{one.specifier}" for one in wanted if _is_odd(one, versions[one.name])]
    return Finding(
        topic=TOPIC,
        name=f"extra {name}",
        value=", ".join(f"{library} {found or 'absent'}" for library, found in versions.items()),
        verdict="absent" if missing else "note" if odd else "good",
        why=_why(name, missing=missing, odd=odd),
        mend=f"pip install 'dinov2[{name}]'" if missing or odd else "",
    )


def _is_odd(requirement: Requirement, found: str | None) -> bool:
    return found is not None and not requirement.specifier.contains(found, prereleases=True)


def _why(extra: str, *, missing: list[str], odd: list[str]) -> str:
    use = USES.get(extra, "")
    if missing:
        return f"only for {use}" if use else "only some commands need it"
    return f"tried with {', '.join(odd)}" if odd else ""


def _version(library: str) -> str | None:
    """Of OpenCV any of its packages will do, for they are the same module."""
    candidates = [library]
    if canonicalize_name(library) == "opencv-python-headless":
        candidates += ["opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"]
    for name in candidates:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _cannot_load(library: str) -> str:
    """Why a library does not load; empty where it does. A missing shared object is an OSError or an ImportError."""
    module = IMPORTED_AS.get(canonicalize_name(library), library.replace("-", "_"))
    try:
        importlib.import_module(module)
    except Exception as error:  # a library may raise whatever it likes while it is loaded
        return first_line(error)
    return ""
