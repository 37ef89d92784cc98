"""Which DICOM transfer syntaxes can be read here, found out by reading a tiny film of each.

In: `streams.json`, one compressed frame of `ramp` per encapsulated syntax (base64, by its UID); native films are drawn.
Out: a finding for each family. A decoder that is there but returns other values counts as broken for this machine.
"""

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinov2.config.schema import Config
from dinov2.doctor.finding import Finding, first_line

if TYPE_CHECKING:
    from pydicom.uid import UID

TOPIC = "films"
SIDE = 32  # pixels; the smallest that every encoder takes
STREAMS = Path(__file__).with_name("streams.json")
MOST_ERROR = 0.01  # of the range, in lossy streams
INSTALL = "pip install --force-reinstall pydicom pylibjpeg pylibjpeg-openjpeg pylibjpeg-rle pyjpegls python-gdcm"


def examine(_: Config) -> tuple[Finding, ...]:
    """One finding where everything is read, else one more for each transfer syntax that is not."""
    try:
        trials = _trials()
    except Exception as error:  # a decoder's library that does not load, in whatever way
        return (
            Finding(
                topic=TOPIC,
                name="DICOM",
                value="cannot be read",
                verdict="absent",
                why=f"{first_line(error)}; PNG manifests can be trained on all the same",
                mend=INSTALL,
            ),
        )
    faults = {name: fault for name, trial in trials.items() if (fault := _fault(trial))}
    names = [name for name in trials if name not in faults]
    summary = Finding(
        topic=TOPIC, name="DICOM", value=f"{len(names)} of {len(trials)} transfer syntaxes: {_short(names)}"
    )
    return (summary, *(_unread(name, fault) for name, fault in faults.items()))


def ramp(*, bits: int) -> NDArray[np.int64]:
    """The picture that all streams hold: grey rises to the right and down.  -> [32, 32]"""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray((4 * rows + 3 * columns) * (1 if bits == 8 else 16), dtype=np.int64)


def _trials() -> dict[str, Callable[[], float]]:
    """Name of a transfer syntax -> reads a film of it and returns the largest difference, as a share of the range."""
    from pydicom.uid import UID

    from dinov2.preprocess.decode.decoders import ENCAPSULATED, NATIVE

    streams = {UID(uid): base64.b64decode(text) for uid, text in json.loads(STREAMS.read_text()).items()}
    trials: dict[str, Callable[[], float]] = {}
    for syntax in NATIVE:
        trials[syntax.name] = partial(_read_native, syntax)
    for syntax in sorted(ENCAPSULATED):
        trials[syntax.name] = partial(_decode, streams[syntax], syntax=syntax)
    return trials


def _fault(trial: Callable[[], float]) -> str:
    try:
        error = trial()
    except Exception as failure:  # DicomRejected with every decoder's complaint, or a library's own
        return first_line(failure)
    return "" if error <= MOST_ERROR else "values come out wrong"


def _read_native(syntax: "UID") -> float:
    """Through the whole reader, as a film from an archive goes."""
    from dinov2.config.preprocess import Decode, Limits
    from dinov2.phantom.dicom import Identification, Technique, film_bytes
    from dinov2.preprocess.decode.film import open_film

    drawn = (ramp(bits=8) / 255).astype(np.float32)
    who = Identification(series="doctor", patient="none", number=0, view="PA")
    data = film_bytes(drawn, technique=Technique(syntax=syntax), identification=who)
    pixels = open_film(data, policy=Decode(), limits=Limits()).frame(0).pixels
    return _difference(_stretched(pixels), _stretched(drawn))


def _decode(stream: bytes, *, syntax: "UID") -> float:
    from pydicom.uid import JPEGBaseline8Bit

    from dinov2.preprocess.decode.decoders import decode
    from dinov2.preprocess.decode.layout import Layout

    bits = 8 if syntax == JPEGBaseline8Bit else 12
    layout = Layout(
        rows=SIDE,
        columns=SIDE,
        samples=1,
        bits_allocated=8 if bits == 8 else 16,
        bits_stored=bits,
        high_bit=bits - 1,
        is_signed=False,
        photometric="MONOCHROME2",
        is_planar=False,
        disagrees=False,
    )
    return _difference(decode(stream, syntax=syntax, layout=layout) / 2**bits, ramp(bits=bits) / 2**bits)


def _stretched(film: NDArray[Any]) -> NDArray[np.float64]:
    """From 0 to 1: a phantom, like a detector, leaves some of its range unused."""
    values = film.astype(np.float64)
    return np.asarray((values - values.min()) / (values.max() - values.min()))


def _difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(found.astype(np.float64) - expected).max())


def _short(names: list[str]) -> str:
    """Families with their number of syntaxes: 4 native, 5 JPEG ..."""
    families = {"native": 0, "RLE": 0, "JPEG": 0, "JPEG-LS": 0, "JPEG 2000": 0, "HTJ2K": 0}
    for name in names:
        families[_family(name)] += 1
    return ", ".join(f"{family} {count}" for family, count in families.items() if count)


def _family(name: str) -> str:
    starts = {"High-Throughput": "HTJ2K", "JPEG 2000": "JPEG 2000", "JPEG-LS": "JPEG-LS", "JPEG": "JPEG", "RLE": "RLE"}
    return next((family for start, family in starts.items() if name.startswith(start)), "native")


def _unread(name: str, fault: str) -> Finding:
    return Finding(topic=TOPIC, name="DICOM", value=f"cannot read {name}", verdict="absent", why=fault, mend=INSTALL)
