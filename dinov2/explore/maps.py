"""Features as points of a plane, made once and kept.

In: a `FeatureTable` and a method. Out: `Placed`: float32 [N, 2] within 0..1, the same for the same features; kept
beside the features under a name that holds what it was made of.

Vectors are brought to length 1 first, so that distances follow cosines, and for UMAP and t-SNE to their first 50
principal components. UMAP: McInnes et al. 2018, by umap-learn. t-SNE: van der Maaten and Hinton 2008, by scikit-learn.
"""

import hashlib
import importlib
import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dinov2.errors import ConfigError
from dinov2.explore.features import FeatureTable, Floats
from dinov2.explore.neighbours import unit_length

Method = Literal["umap", "tsne", "pca"]
METHODS = ("auto", "umap", "tsne", "pca")
TITLES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "principal components"}
PACKAGES = {"umap": "umap-learn", "tsne": "scikit-learn", "pca": "scikit-learn"}
FORMAT = 1
SEED = 0
COMPONENTS = 50
NEIGHBOURS = 15  # of UMAP
PERPLEXITY = 30  # of t-SNE
FEWEST = 10  # films below which only principal components make sense
MOST_FOR_TSNE = 10_000  # a few minutes on two cores
INSTALL = "pip install 'dinov2[explore]'"


@dataclass(frozen=True)
class Placed:
    """Where every film lies."""

    method: Method
    positions: Floats  # [N, 2] within 0..1, one scale for both axes
    note: str  # what the axes mean
    kept: Path | None  # the file that holds the map; None where it could not be written
    was_kept: bool  # whether it was there already


def choose_method(asked: str, *, num_films: int) -> tuple[Method, str]:
    """A method, and why where it was chosen here.  Raises ConfigError where it needs a library that is not there."""
    has_umap = importlib.util.find_spec("umap") is not None
    if num_films < FEWEST:
        return "pca", f"{FEWEST} films or more make a map of neighbourhoods"
    if asked == "umap" and not has_umap:
        raise ConfigError(f"--method umap: umap-learn is not installed. {INSTALL}, or --method tsne.")
    if asked in ("umap", "tsne", "pca"):
        return asked, ""  # type: ignore[return-value]
    if asked != "auto":
        raise ConfigError(f"--method {asked}: none of {', '.join(METHODS)}.")
    if has_umap:
        return "umap", "umap-learn is installed"
    if num_films <= MOST_FOR_TSNE:
        return "tsne", f"umap-learn is not installed; {INSTALL}"
    return "pca", f"t-SNE of {num_films:,} films takes long and umap-learn is not installed; {INSTALL}"


def place_films(features: FeatureTable, *, method: Method, tell: Callable[[str], None] = lambda _: None) -> Placed:
    """The map of these features, read where it was made before.  `tell` hears what is going on."""
    file = features.path.with_suffix(".maps") / f"{method}-{_key(features, method)}.npz"
    kept = _read(file, num_films=len(features))
    if kept is not None:
        return Placed(method, kept[0], kept[1], file, True)
    compiled = ", which is compiled first" if method == "umap" else ""  # a dozen seconds of a processor
    tell(f"{TITLES[method]} of {len(features):,} films{compiled}")
    raw, note = _make(features.vectors, method=method)
    positions = _within_unit_square(raw)
    return Placed(method, positions, note, file if _write(file, positions, note) else None, False)


def _make(vectors: Floats, *, method: Method) -> tuple[Floats, str]:
    """[N, D] -> [N, 2] in any unit, and what the axes mean."""
    units = unit_length(vectors)
    if not np.ptp(units, axis=0).any():  # scikit-learn's t-SNE divides by their spread, and takes the process with it
        return np.zeros((len(units), 2), dtype=np.float32), "all films have the same features"
    if method == "pca":
        parts, shares = _principal(units, 2)
        return parts, "with " + " and ".join(f"{100 * share:.0f} %" for share in shares) + " of the variance"
    parts, _ = _principal(units, COMPONENTS)
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(float(PERPLEXITY), (len(parts) - 1) / 3)
        made = TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(parts)
        return np.asarray(made, dtype=np.float32), "near films are alike; sizes of groups and gaps mean little"
    umap: Any = importlib.import_module("umap")  # not at the top: it takes seconds, and not everybody has it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it remarks on few films and on repeatability; both are wanted here
        made = umap.UMAP(n_neighbors=min(NEIGHBOURS, len(parts) - 1), random_state=SEED, n_jobs=1).fit_transform(parts)
    return np.asarray(made, dtype=np.float32), "near films are alike; far apart is not how different"


def _principal(units: Floats, count: int) -> tuple[Floats, Floats]:
    """[N, D], not all alike -> [N, K] along the directions of most variance, and their shares [K].

    K = min(count, N, D), and at least 2: what is missing is 0.
    """
    from sklearn.decomposition import PCA

    fitted = PCA(n_components=min(count, *units.shape), svd_solver="covariance_eigh")
    parts = np.asarray(fitted.fit_transform(units.astype(np.float64)), dtype=np.float32)
    shares = np.asarray(fitted.explained_variance_ratio_, dtype=np.float32)
    missing = max(0, 2 - parts.shape[1])
    return np.pad(parts, ((0, 0), (0, missing))), np.pad(shares, (0, missing))


def _within_unit_square(raw: Floats) -> Floats:
    """One scale for both axes, centred.  Points that a method could not place lie in the middle."""
    finite = np.isfinite(raw).all(axis=1)
    if not finite.any():
        return np.full(raw.shape, 0.5, dtype=np.float32)
    low, high = raw[finite].min(axis=0), raw[finite].max(axis=0)
    span = float((high - low).max()) or 1.0
    placed = 0.5 + (raw - (low + high) / 2) / span
    placed[~finite] = 0.5
    within: Floats = np.clip(placed, 0, 1).astype(np.float32)
    return within


def _key(features: FeatureTable, method: Method) -> str:
    """Of everything that moves a point."""
    how = {
        "format": FORMAT,
        "features": features.fingerprint,
        "library": version(PACKAGES[method]),
        "settings": [SEED, COMPONENTS, NEIGHBOURS, PERPLEXITY],
    }
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:16]


def _read(file: Path, *, num_films: int) -> tuple[Floats, str] | None:
    """None where there is none, or where it is damaged: then it is made again."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            positions, note = np.asarray(kept["positions"], dtype=np.float32), str(kept["note"])
    except Exception:  # a damaged archive raises whatever its bytes make zipfile, zlib or NumPy meet
        return None
    fits = positions.shape == (num_films, 2) and bool(np.isfinite(positions).all())
    return (positions, note) if fits else None


def _write(file: Path, positions: Floats, note: str) -> bool:
    """Whole or not at all; False where the folder takes no files."""
    try:
        file.parent.mkdir(exist_ok=True)
        descriptor, partial = tempfile.mkstemp(prefix=f".{file.stem}.", suffix=".npz", dir=file.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                np.savez(stream, positions=positions, note=np.array(note))
            Path(partial).replace(file)
        finally:
            Path(partial).unlink(missing_ok=True)
    except OSError:
        return False
    return True
