"""`dinov2 explore`: features as a map of films, as a page on this machine or as a folder to pass on."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from dinov2.cli import COMMANDS
from dinov2.cli.console import progress_bar, stdout
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.explore.exploration import Exploration

METHODS = ("auto", "umap", "tsne", "pca")
HOST, PORT = "127.0.0.1", 8765
EXAMPLES = """who can see it:
  The page is for this machine alone. Films leave it re-encoded and by the number of their row; no path is taken from a
  browser. With another --host, and with --token, only who has the whole printed address is let in. From a desk to a
  cluster: ssh -L 8765:127.0.0.1:8765 NODE, then http://127.0.0.1:8765/.

examples:
  dinov2 explore --features features.parquet --manifest pictures/manifest.parquet --color-by view
  dinov2 explore --features f.parquet --manifest films.csv --method tsne --output-dir map"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "explore",
        help=COMMANDS.get("explore", "walk about in the features of a manifest, on a page of this machine"),
        description="A map of films by their features: coloured by any column, with neighbours, search and selection.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--features", required=True, type=Path, metavar="F.parquet", help="features, as `dinov2 embed` writes them"
    )
    parser.add_argument(
        "--manifest",
        "--dataset",
        dest="manifest",
        metavar="M",
        help="what the features were made from: a manifest, or Name:root=FOLDER; without it there are ids alone",
    )
    parser.add_argument("--vector", default="cls", metavar="COLUMN", help="features to map: cls (default) or pooled")
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="auto",
        help="auto: UMAP where umap-learn is installed, else t-SNE, of many films principal components",
    )
    parser.add_argument("--color-by", metavar="COLUMN", help="the column that colours the map when it opens")
    parser.add_argument("--host", default=HOST, metavar="H", help=f"address to listen on (default {HOST})")
    parser.add_argument("--port", type=int, default=PORT, metavar="P", help=f"default {PORT}; 0: any that is free")
    parser.add_argument("--token", action="store_true", help=f"ask for a token on {HOST} too: others use this machine")
    parser.add_argument("--output-dir", type=Path, metavar="D", help="write the page and small pictures here instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Makes the map; serves it until Ctrl-C, or writes it."""
    from dinov2.explore.exploration import explore
    from dinov2.explore.server import check_address
    from dinov2.explore.static import check_folder

    folder: Path | None = arguments.output_dir
    if folder is not None and (arguments.token or (arguments.host, arguments.port) != (HOST, PORT)):
        raise ConfigError("--output-dir writes a folder and serves nothing: leave out --host, --port and --token.")

    def check() -> None:
        if folder is None:
            check_address(arguments.host, arguments.port)
        else:
            check_folder(folder)

    with progress_bar() as bar:
        line = bar.add_task("map", total=None)
        shown = explore(
            arguments.features,
            manifest=arguments.manifest,
            method=arguments.method,
            color_by=arguments.color_by,
            vector=arguments.vector,
            before_map=check,
            tell=lambda status: bar.update(line, status=status),
        )
        bar.update(line, total=1, completed=1, status="done")
    _tell(shown, arguments.features)
    return _serve(shown, arguments) if folder is None else _write(shown, folder)


def _tell(shown: "Exploration", features: Path) -> None:
    placed = shown.placed
    why = f" ({shown.why})" if shown.why else ""
    if placed.kept is None:
        kept = f"; the folder {features.parent} takes no files, so it is made anew every time"
    else:
        kept = f"; kept in {placed.kept}" if not placed.was_kept else f", as made before in {placed.kept}"
    stdout.print(
        f"{features}: {len(shown.features):,} films, width {shown.features.vectors.shape[1]}. Map: "
        f"{shown.title}{why}{kept}.",
        markup=False,
    )
    for remark in shown.films.remarks:
        stdout.print(f"note: {remark}", markup=False)


def _serve(shown: "Exploration", arguments: argparse.Namespace) -> int:
    from dinov2.explore.guard import is_loopback
    from dinov2.explore.server import open_server

    with open_server(shown, host=arguments.host, port=arguments.port, with_token=arguments.token) as server:
        if not is_loopback(arguments.host):
            stdout.print("Whoever has this address sees the films:", markup=False)
        stdout.print(f"open: {server.address}   (Ctrl-C ends it)", markup=False)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            stdout.print("ended.")
    return 0


def _write(shown: "Exploration", folder: Path) -> int:
    from dinov2.explore.static import write_folder

    num_films = len(shown.films) if shown.films.pictures is not None else 0
    with progress_bar() as bar:
        line = bar.add_task("pictures", total=num_films)
        written = write_folder(shown, folder, advance=lambda count: bar.advance(line, count))
    pictures = f"the page and {written.num_pictures:,} pictures" if num_films else "the page, without pictures"
    absent = f", {written.num_absent:,} without" if written.num_absent else ""
    stdout.print(f"{folder}: {pictures}{absent}, {decimal(written.num_bytes)}.", markup=False)
    warning = " Films are in it: pass it on as you would them." if written.num_pictures else ""
    stdout.print(f"next: open {written.page} in a browser.{warning}", markup=False)
    return 0
