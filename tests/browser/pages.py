"""Every page that the package writes, small, from what is made by its own commands and functions.

In: an empty folder. Out: the path of a page, or of a folder that is served.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

from dinov2.cli import main
from tests.eval.tables.outcomes import outcome
from tests.explore.made import write_features, write_films
from tests.preprocess.films import convert, film, write_phantom
from tests.report.runs import small_run

NUM_FILMS = 4
LONG_NAME = "a_run_whose_name_says_all_of_its_settings_lr2e-4_prototypes65536_sinkhorn_patch14"
TINY = ("crops.global_crops_size=112", "crops.local_crops_size=48", "crops.local_crops_number=2")
EXPLORED = 40


def run_command(*words: object) -> None:
    """`dinov2` in this process."""
    assert main([str(word) for word in words]) == 0


def write_phantoms(folder: Path) -> Path:
    """PNGs of synthetic films; the name of the first would be markup if nothing escaped it."""
    folder.mkdir()
    for number in range(NUM_FILMS):
        name = "a<b>&.png" if number == 0 else f"{number}.png"
        assert cv2.imwrite(str(folder / name), np.rint(film(number, 120) * 255).astype(np.uint8))
    return folder


def preprocess_page(folder: Path) -> Path:
    """Of films that were taken, one that was rejected, one that is there twice and one that is no film."""
    films = folder / "films"
    for number in range(3):
        write_phantom(films / f"{number}.dcm", number=number, seed=number, Manufacturer=("Philips", "Agfa")[number % 2])
    write_phantom(films / "again.dcm", number=3, seed=1)
    write_phantom(films / "knee.dcm", number=4, seed=4, BodyPartExamined="KNEE")
    (films / "junk").write_bytes(b"junk" * 100)
    convert(films, folder / "pictures")
    run_command("preview", "preprocess", folder / "pictures", "--output", folder / "page.html")
    return folder / "page.html"


def eval_page(folder: Path) -> Path:
    """Of a probe with three classes beside its floor."""
    from dinov2.eval.tables import write_result

    floor = outcome("multilabel", seed=5, probe="floor")
    write_result(outcome("multilabel"), folder / "result", beside=[floor], draws=8, seed=0)
    return folder / "result" / "page.html"


def report_page(folder: Path) -> Path:
    """Of one run with looks."""
    small_run(folder / "run", num_steps=200, num_looks=5, grid=6)
    run_command("report", folder / "run", "--output", folder / "page.html")
    return folder / "page.html"


def reports_page(folder: Path) -> Path:
    """Of three runs, one with a long name, one that has not yet a step."""
    small_run(folder / "runs" / "first", num_looks=2, seed=1)
    small_run(folder / "runs" / LONG_NAME, num_looks=2, seed=2)
    begun = small_run(folder / "runs" / "begun", num_looks=0)
    (begun / "training_metrics.json").write_text("")
    (begun / "logs" / "timing.json").write_text("")
    run_command("report", folder / "runs", "--output", folder / "page.html")
    return folder / "page.html"


def augmentation_page(folder: Path) -> Path:
    """With every operation before and after."""
    films = write_phantoms(folder / "films")
    words = ("--dataset", films, "--output", folder / "page.html", "--rows", 2, "--steps", *TINY)
    run_command("preview", "augmentation", *words)
    return folder / "page.html"


def masks_page(folder: Path) -> Path:
    """Of few films."""
    films = write_phantoms(folder / "films")
    words = ("--dataset", films, "--output", folder / "page.html", "--rows", 2, "--films", 64, *TINY)
    run_command("preview", "masks", *words)
    return folder / "page.html"


def features_page(folder: Path) -> Path:
    """Of random weights: 6 x 6 patches on each film."""
    films = write_phantoms(folder / "films")
    words = ("--backbone", "random:vit_small/16@96", "--dataset", films, "--films", 3, "--device", "cpu")
    run_command("preview", "features", *words, "--output", folder / "page.html")
    return folder / "page.html"


def explored(folder: Path, *, skip: Sequence[int] = ()) -> tuple[Path, Path]:
    """Features of two groups of films, and their manifest; the pictures of `skip` are gone."""
    manifest = write_films(folder / "films", num=EXPLORED, skip=skip, note=["<b>a note</b>"] * EXPLORED)
    return write_features(folder / "features.parquet", num=EXPLORED), manifest


def explore_page(folder: Path) -> Path:
    """As a folder to pass on."""
    features, manifest = explored(folder, skip=[7])
    words = ("--features", features, "--manifest", manifest, "--method", "pca", "--color-by", "view")
    run_command("explore", *words, "--output-dir", folder / "map")
    return folder / "map" / "index.html"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder over HTTP."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
