"""Public datasets by name, as `Name:root=FOLDER[:split=...][:extra=...]` means them.

In: a folder. Out: a `Source`: every picture with its split, labels and
mask as the dataset defines them. Nothing in the folder is moved or written.
"""

from collections.abc import Callable, Mapping
from functools import partial

from dinov2.eval.datasets.public import folders, kaggle, of_layout, openi, scans, tuberculosis
from dinov2.eval.datasets.public.pickled import find_pickles, pickled
from dinov2.eval.datasets.public.request import Request
from dinov2.eval.datasets.source import Source

__all__ = ["PUBLIC", "Request"]

Opener = Callable[[Request], Source]


def _or_pickled(name: str, opener: Opener, asked: Request) -> Source:
    """The splits of pickles where `extra` or `root` holds them; else the dataset's own."""
    place = find_pickles(asked.extra, asked.root)
    return pickled(name, place, root=asked.root) if place else opener(asked)


def _scans(one: scans.Scans) -> Opener:
    return partial(scans.segmented, one)


_OPENERS: Mapping[str, Opener] = {
    "CheXpert": of_layout.chexpert,
    "NIHChestXray": of_layout.nih,
    "MC": tuberculosis.montgomery,
    "Shenzhen": tuberculosis.shenzhen,
    "VinDrCXR": of_layout.vindr,
    "RSNAPneumonia": kaggle.rsna,
    "SIIM": kaggle.siim,
    "CandidPTX": kaggle.candid,
    "OpenI": openi.openi,
    "PadChest": of_layout.padchest,
    "COVIDQU": folders.covid_qu,
    "Pneumonia": folders.pneumonia,
    "SARSCoV2CT": scans.sars_cov_2_ct,
    "BTCV": _scans(scans.BTCV),
    "BTCVSlice": _scans(scans.BTCV),
    "AMOS": _scans(scans.AMOS),
    "MSDHeart": _scans(scans.MSD_HEART),
    "MSDHipp": _scans(scans.MSD_HIPPOCAMPUS),
    "MSDSpleen": _scans(scans.MSD_SPLEEN),
}
PUBLIC: Mapping[str, Opener] = {name: partial(_or_pickled, name, opener) for name, opener in _OPENERS.items()}
