"""`dinov2 manifest check M --against OTHER`: what of an evaluation set is inside pretraining data.

In: two manifests. Out: pairs by kind, counted and listed; the leaking rows as a CSV.
"""

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from dinov2.cli.console import progress_bar, stderr, stdout
from dinov2.cli.manifest.action import NUM_LISTED

if TYPE_CHECKING:
    from dinov2.manifest import Manifest
    from dinov2.manifest.leakage import Pairs

MOST_THREADS = 16  # that read pictures


def find_leaks(arguments: argparse.Namespace, manifest: "Manifest", other: "Manifest") -> "Mapping[str, Pairs]":
    """Kind -> pairs, told on standard output and, with --output, written.  Raises ManifestError, OSError."""
    from dinov2.manifest.leakage import KINDS, described, joined, shared_by_table, write_leaks

    parts = shared_by_table(manifest, other)
    parts += list(_near_by_pictures(manifest, other) if arguments.near else _near_by_table(manifest, other))
    found = joined(parts)
    for kind, pairs in found.items():
        stdout.print(f"{KINDS[kind]}: {len(pairs.rows):,} rows", markup=False)
        for line in described(pairs, manifest=manifest, other=other, limit=NUM_LISTED):
            stdout.print(f"  {line}", markup=False)
    if found and arguments.output:
        count = write_leaks(arguments.output, found, manifest=manifest, other=other)
        stdout.print(f"{arguments.output}: the {count:,} rows that leak.", markup=False)
        stdout.print(
            f"next: dinov2 train --config-file F --output-dir RUN train.dataset_path={arguments.manifest} "
            f"data.exclude={arguments.output}",
            markup=False,
        )
    return found


def _near_by_table(manifest: "Manifest", other: "Manifest") -> "Iterator[Pairs]":
    """By the perceptual hashes that conversion wrote; says so where a manifest has none."""
    from dinov2.manifest.leakage import NEAR_BITS, has_hashes, shared_by_hash

    if not (has_hashes(manifest) and has_hashes(other)):
        stderr.print(
            "near-duplicates were not looked for: one of the manifests has no perceptual_hash (dinov2 preprocess "
            "writes it). --near reads every picture instead.",
            markup=False,
        )
        return
    with progress_bar() as bar:
        task = bar.add_task("comparing hashes", total=len(manifest))
        for done, pairs in shared_by_hash(manifest, other, max_bits=NEAR_BITS):
            bar.update(task, completed=done)
            yield pairs


def _near_by_pictures(manifest: "Manifest", other: "Manifest") -> "Iterator[Pairs]":
    """By hashes of every picture and its crops; those that come near are laid over each other."""
    import os

    import numpy as np

    from dinov2.eval.datasets.resemblance import SAME_FILM, all_fingerprints, candidates, read_grey, resemblance
    from dinov2.manifest.leakage import Pairs

    threads = min(os.cpu_count() or 1, MOST_THREADS)
    prints = []
    with progress_bar() as bar:
        for words, one in (("reading evaluation pictures", other), ("reading pretraining pictures", manifest)):
            task = bar.add_task(words, total=len(one))
            known = []
            for hashes in all_fingerprints(one, threads=threads):
                known.append(hashes)
                bar.advance(task)
            prints.append(np.stack(known))
            unread = int((~prints[-1].any(axis=(1, 2))).sum())
            if unread:
                stderr.print(f"{unread:,} of {len(one):,} pictures cannot be compared (unreadable, or of one level).")
        task = bar.add_task("comparing hashes", total=prints[1].shape[0] * prints[1].shape[1])
        pairs: set[tuple[int, int]] = set()
        for done, rows, others in candidates(prints[1], prints[0]):
            bar.update(task, completed=done)
            pairs.update(zip(rows.tolist(), others.tolist(), strict=True))
        task = bar.add_task("laying films over each other", total=len(pairs))
        same = []
        for row, place in sorted(pairs):
            if resemblance(read_grey(manifest, row), read_grey(other, place)) >= SAME_FILM:
                same.append((row, place))
            bar.advance(task)
    chosen = np.asarray(same, dtype=np.int64).reshape(-1, 2)
    yield Pairs("near", chosen[:, 0], chosen[:, 1])
