"""The pictures of pages and terminal in docs/pictures, made again: real commands, real pages, a real browser.

In: nothing, or a manifest of pictures and a finished run on them. Out: PNGs, each below 400 kB.

    python scripts/screenshots.py                                  on synthetic films; trains a small run, some minutes
    python scripts/screenshots.py --manifest M --run RUN           on films of yours and a run that has looks at them
    python scripts/screenshots.py --only explore terminal          only some of them

Needs the `test` extra and Chromium: bash scripts/local_browser.sh.
"""

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.browser.driver import find_chromium, launch, opened_tab  # noqa: E402
from tests.browser.pages import served  # noqa: E402

WIDE_PX = 1280
SCALE = 2
MOST_BYTES = 400_000
RUN_NAME = "runs/first"
PHANTOM_LABELS = ["label_nodule", "label_effusion", "label_cardiomegaly"]
COLUMNS, LINES = 118, 60  # of the terminal
TRAINING = (
    "--config-file=phantom_probe",
    "student.patch_size=8",
    "student.embed_dim=128",
    "student.num_heads=2",
    "crops.global_crops_size=96",
    "crops.local_crops_size=48",
    "train.batch_size_per_gpu=16",
    "monitors.size=192",
    "monitors.max_pictures=96",
    "logging.every_steps=2",
)
STEPS, STEPS_SHOWN = 240, 60  # of a run whose report is drawn, of one that is only watched
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; }}
section {{ display: inline-grid; gap: 14px; background: #fff; font: 13.5px/1.22 "DejaVu Sans Mono", monospace; }}
main {{ background: #11161d; color: {foreground}; border-radius: 10px; padding: 0 22px 18px; }}
header {{ color: #93a1b3; font: 13px "Liberation Sans", sans-serif; padding: 11px 0 9px; }}
header i {{ display: inline-block; width: 11px; height: 11px; border-radius: 6px;
  margin-right: 7px; background: #384353 }}
pre {{ margin: 0; font: inherit; }} b.prompt {{ color: #7cc0ee; font-weight: 400; }}
</style><section>{windows}</section>"""


@dataclass(frozen=True)
class Material:
    """What the pictures are of."""

    folder: Path  # for what is made on the way
    manifest: Path
    run: Path
    watched: str  # what a training wrote on a terminal
    browser: Browser

    def written(self, *words: object) -> Path:
        """The page that a command writes to `--output`."""
        output = self.folder / f"{words[0]}_{words[1] if words[0] == 'preview' else ''}.html"
        run_command(*words, "--output", output, where=self.folder)
        return output

    @property
    def backbone(self) -> str:
        """The export that the run would hand on, from `folder`: a page shows this name."""
        is_own = self.run == self.folder / RUN_NAME
        name = RUN_NAME if is_own else "runs/shown"
        if not is_own:
            linked(self.folder / name, self.run)
        numbered = [path.name for path in (self.run / "exports").iterdir() if path.name.isdigit()]
        best = (self.run / "exports" / "best").exists()
        return f"{name}/exports/{'best' if best else max(numbered, key=int)}"


def linked(link: Path, target: Path) -> Path:
    """A short name, so that what is shown names no folder of this machine."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target)
    return link


def run_command(*words: object, where: Path = ROOT) -> None:
    """`dinov2` in a process of its own, which says here what it says."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "dinov2", *map(str, words)], cwd=where, env=environment, check=True)


def on_terminal(*words: object, where: Path) -> str:
    """All that a command writes to a terminal of COLUMNS x LINES characters, cursor movements and colours included."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(ROOT)}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "dinov2", *map(str, words)],
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=where,
        env=environment,
    ) as process:
        os.close(child)
        said = bytearray()
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:  # how a terminal of Linux says that nobody writes any more
                break
            if not part:
                break
            said += part
    os.close(parent)
    if process.returncode:
        raise SystemExit(f"dinov2 {words[0]}: exit code {process.returncode}\n{said.decode(errors='replace')[-3000:]}")
    return said.decode(errors="replace")


def screen_of(said: str) -> list[str]:
    """The lines that stay on a terminal, colours in them: what is drawn over is gone."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[\d*[AKJ]|\x1b\[\?\d+[hl]|\r|\n|(?:\x1b\[[\d;]*m|[^\x1b\r\n])+", said):
        if part == "\n":
            row += 1
            lines += [""] * (row - len(lines) + 1)
        elif part.endswith("A") and part.startswith("\x1b"):
            row = max(0, row - int(part[2:-1] or 1))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part == "\r" or part.startswith("\x1b[?"):
            continue
        else:
            lines[row] = part if lines[row] and part.startswith(lines[row][:1]) else lines[row] + part
    return lines


def drawn_lines(lines: list[str]) -> str:
    """As coloured HTML."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text("\n").join(Text.from_ansi(line) for line in lines), soft_wrap=True)
        return console.export_html(theme=MONOKAI, inline_styles=True, code_format="<pre>{code}</pre>")


def palette_of(image: Image.Image) -> Image.Image:
    """256 colours: greys for films, those that most of it has, and those of small things, like a thin line."""
    often = image.quantize(140, method=Image.Quantize.MEDIANCUT).getpalette() or []
    seldom = image.quantize(68, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    greys = [level for grey in range(48) for level in [round(grey * 255 / 47)] * 3]
    palette = Image.new("P", (1, 1))
    palette.putpalette(greys + often[: 3 * 140] + seldom[: 3 * 68])
    return palette


def save(picture: bytes | Image.Image, path: Path) -> None:
    """A PNG of 256 colours, made smaller by half where it would be too large."""
    image = picture if isinstance(picture, Image.Image) else Image.open(BytesIO(picture))
    image = image.convert("RGB")
    while True:
        buffer = BytesIO()
        image.quantize(palette=palette_of(image), dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() < MOST_BYTES:
            break
        if image.width <= WIDE_PX:
            raise SystemExit(f"{path}: {buffer.tell():,} bytes at {image.width} px; show less")
        image = image.resize(
            (max(WIDE_PX, image.width * 3 // 4), image.height * max(WIDE_PX, image.width * 3 // 4) // image.width)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    print(f"{path}: {image.width} x {image.height}, {buffer.tell() / 1000:.0f} kB", flush=True)


@contextmanager
def shown(material: Material, address: Path | str, *, height: int = 900):
    """A page, light, twice as fine; whatever goes wrong in it ends the script."""
    with opened_tab(material.browser, width=WIDE_PX, height=height, scale=SCALE) as tab:
        yield tab.open(address)
        if tab.faults:
            raise SystemExit(f"{address}: {tab.faults}")


def strips(page: Page, *parts: tuple[str, str]) -> Image.Image:
    """Pieces of a page below each other: from the top of one element to the bottom of another."""
    taken = []
    for first, last in parts:
        top = page.locator(first).first.evaluate("one => one.getBoundingClientRect().top + scrollY")
        bottom = page.locator(last).first.evaluate("one => one.getBoundingClientRect().bottom + scrollY")
        clip = {"x": 0, "y": top - 14, "width": WIDE_PX, "height": bottom - top + 28}
        taken.append(Image.open(BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB"))
    whole = Image.new("RGB", (taken[0].width, sum(one.height for one in taken)), taken[0].getpixel((2, 2)))
    top = 0
    for one in taken:
        whole.paste(one, (0, top))
        top += one.height
    return whole


def report(material: Material) -> Image.Image:
    """What is known first, the losses, the scores, patch tokens through the run."""
    output = material.folder / "report.html"
    run_command("report", material.run, "--output", output, "--films", 4)
    with shown(material, output) as page:
        return strips(
            page, ("h1", "#findings + .findings"), ("#losses", "#losses ~ .charts"), ("#colours", "#colours ~ .panel")
        )


def preview_augmentation(material: Material) -> Image.Image:
    """One film, its crops, and every operation on the first of them."""
    words = ("--dataset", material.manifest, "--rows", 1, "--steps", "--config-file", "vitb14_cxr", "--seed", 5)
    with shown(material, material.written("preview", "augmentation", *words)) as page:
        page.evaluate("document.querySelectorAll('.steps tr + tr').forEach((one) => one.remove())")
        return strips(page, ("h1", "section.panel"))


def preview_masks(material: Material) -> Image.Image:
    """The counts, and a row of crops."""
    words = ("--dataset", material.manifest, "--rows", 3, "--films", 512, "--config-file", "vitb14_cxr")
    with shown(material, material.written("preview", "masks", *words)) as page:
        return strips(page, ("h1", ".crops"))


def preview_features(material: Material) -> Image.Image:
    """A patch that was clicked, and what is like it; colours and attention of two films."""
    words = ("--dataset", material.manifest, "--backbone", material.backbone, "--films", 6, "--size", 288)
    with shown(material, material.written("preview", "features", *words)) as page:
        button = page.locator("#picks button").nth(1)
        box = button.bounding_box() or {"width": 0, "height": 0}
        button.click(position={"x": 0.36 * box["width"], "y": 0.3 * box["height"]})  # a lung
        page.mouse.move(2, 2)
        return strips(page, ("h1", "#picks"), ("#colours", ".films .panel"))


def explore(material: Material) -> bytes:
    """The map, one film chosen."""
    features, folder = material.folder / "features.parquet", material.folder / "map"
    run_command(
        "embed",
        "--backbone",
        material.backbone,
        "--manifest",
        material.manifest,
        "--output",
        features,
        where=material.folder,
    )
    run_command(
        "explore", "--features", features, "--manifest", material.manifest, "--output-dir", folder, "--color-by", "view"
    )
    with served(folder) as address, shown(material, f"{address}index.html", height=860) as page:
        page.locator("html[data-ready=true]").wait_for(state="attached")
        page.evaluate("choose(xs.indexOf(Math.max(...xs)))")
        page.locator(".near img").last.wait_for()
        page.wait_for_timeout(500)
        return page.screenshot()


def terminal(material: Material) -> bytes:
    """A training on its last step, and what `dinov2 doctor` says of this machine, in part."""
    trained = screen_of(material.watched)
    doctor = sections(
        screen_of(on_terminal("doctor", where=material.folder)), without=("libraries", "places", "cluster")
    )
    windows = [
        f"<main><header><i></i><i></i><i></i>&nbsp; {title}</header>{drawn_lines(lines)}</main>"
        for title, lines in (
            ("dinov2 train", trained),
            ("dinov2 doctor, without its libraries, places and cluster", doctor),
        )
    ]
    page_file = material.folder / "terminal.html"
    page_file.write_text(TERMINAL.format(windows="".join(windows), foreground="#e3e9f0"))
    with shown(material, page_file) as page:
        return page.locator("section").screenshot()


def sections(lines: list[str], *, without: tuple[str, ...]) -> list[str]:
    """Lines of the sections that stay; a section ends with an empty line."""
    kept, name = [], ""
    for line in lines:
        plain = re.sub(r"\x1b\[[\d;]*m", "", line).rstrip()
        name = plain if not name and plain else name if plain else ""
        if name not in without and (plain or (kept and kept[-1])):
            kept.append(line if plain else "")
    return kept


PICTURES: dict[str, Callable[[Material], bytes | Image.Image]] = {
    one.__name__: one for one in (report, preview_augmentation, preview_masks, preview_features, explore, terminal)
}


def phantoms(folder: Path) -> Path:
    """A manifest of synthetic films with labels."""
    run_command("phantom", "--output", folder / "films", "--count", 160, "--seed", 0, "--short-side", 512)
    words = ("--input", folder / "films" / "dicom", "--table", folder / "films" / "labels.csv")
    run_command("preprocess", *words, "--output", folder / "all")
    run_command(
        "manifest",
        "split",
        folder / "all" / "manifest.parquet",
        "--output",
        folder / "all" / "split.parquet",
        "--val",
        0.3,
    )
    return folder / "all" / "split.parquet"


def watch_training(folder: Path, manifest: Path, *, steps: int, labels: list[str]) -> str:
    """A real training on a terminal, in `folder`/runs/first; what it wrote there."""
    name = f"{linked(folder / 'pictures', manifest.parent).name}/{manifest.name}"
    data = [f"train.dataset_path={name}", f"monitors.dataset={name}", f"monitors.labels=[{','.join(labels)}]"]
    pace = [
        f"optim.total_steps={steps}",
        f"monitors.every_steps={max(steps // 10, 24)}",
        f"checkpoint.every_steps={steps}",
    ]
    return on_terminal(
        "train", *TRAINING, "--output-dir", RUN_NAME, *data, *pace, "logging.console=table", where=folder
    )


def main() -> int:
    """Makes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, help="pictures to show (default: synthetic films)")
    parser.add_argument("--run", type=Path, help="a finished run with looks (default: one is trained)")
    parser.add_argument("--labels", nargs="+", default=PHANTOM_LABELS, metavar="COLUMN", help="what is probed")
    parser.add_argument("--only", nargs="+", choices=list(PICTURES), default=list(PICTURES), metavar="NAME")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="what is made on the way stays here")
    words = parser.parse_args()
    program = find_chromium()
    if program is None:
        parser.error("no Chromium on PATH: bash scripts/local_browser.sh installs it")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = (words.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        manifest = words.manifest.absolute() if words.manifest else phantoms(folder)
        needs_training = not words.run or "terminal" in words.only
        steps = STEPS_SHOWN if words.run else STEPS
        watched = watch_training(folder, manifest, steps=steps, labels=words.labels) if needs_training else ""
        browser = launch(playwright, program=program)
        run = words.run.absolute() if words.run else folder / RUN_NAME
        material = Material(folder, manifest, run, watched, browser)
        for name in words.only:
            save(PICTURES[name](material), words.output / f"{name}.png")
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
