"""What is found out about the rows while they are tokenised, and reported before the first step.

Nothing here changes what is trained. Rows that are cut, rows that stand in training and validation, labels that are
nearly all one class: each is a reason why a good score means less than it seems, or a bad one more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
from ringtune.train.rows import texts_of
from ringtune.train.shapes import CHOICES

RARE_ROWS = 1  # a class of so few training rows is named
COMMON_SHARE = 0.9  # a class with more of the training rows is named
MOST_HASHES = 20_000_000  # rows of a split whose texts are compared: 8 bytes each
_SHOWN = 5  # classes in a line


@dataclass
class SplitFindings:
    """What is found out about the rows of one split."""

    num_rows: int = 0  # used
    rows_of_files: list[int] = field(default_factory=list)  # in each file of the source
    num_cut: int = 0  # longer than max_seq_length
    longest: int = 0  # tokens of the longest row, uncut
    num_also_in_training: int = 0  # of another split: rows whose texts are training rows
    oddities: dict[str, int] = field(default_factory=dict)  # of `Task.count_oddities`
    counts: dict[str, int] = field(default_factory=dict)  # of the training rows: of each class
    num_unlabelled: int | None = None  # rows without any label, where a row may have several; None: it has one

    def lines(self, max_seq_length: int) -> list[str]:
        """Return what a user should know, a line each. **Pure.**"""
        found = []
        if self.num_rows < sum(self.rows_of_files):
            found.append(f"{self.num_rows} of {sum(self.rows_of_files)} rows are used, drawn by the seed")
        if self.num_cut:
            found.append(
                f"{self.num_cut} of {self.num_rows} rows have more than {max_seq_length} tokens and are cut; "
                f"the longest has {self.longest} (--max_seq_length)"
            )
        found += [f"{count} {what}" for what, count in self.oddities.items() if count]
        if self.num_also_in_training:
            found.append(f"{self.num_also_in_training} of {self.num_rows} rows are training rows as well")
        if self.num_unlabelled is None:
            return found + _about_classes(self.counts)
        if self.num_unlabelled:
            found.append(f"{self.num_unlabelled} of {self.num_rows} rows have no label")
        return found + _about_rare(self.counts, "labels have one row or none")


def _about_classes(counts: Mapping[str, int]) -> list[str]:
    """Return what a user should know of the classes of the training rows. **Pure.**"""
    total = sum(counts.values())
    found = []
    if total:
        name, most = max(counts.items(), key=lambda each: each[1])
        if most > COMMON_SHARE * total:
            found.append(f"{most / total:.1%} of the rows are {name!r}: always answering so has that accuracy")
    has_empty = 0 in counts.values()  # declared, or of an earlier run
    return found + _about_rare(counts, "classes have one row or none" if has_empty else "classes have a single row")


def _about_rare(counts: Mapping[str, int], what: str) -> list[str]:
    rare = [name for name, count in counts.items() if count <= RARE_ROWS]
    if rare:
        shown = ", ".join(map(repr, rare[:_SHOWN])) + (" ..." if len(rare) > _SHOWN else "")
        return [f"{len(rare)} of {len(counts)} {what}: {shown}"]
    return []


class RowHashes:
    """The texts of training rows, as 8 bytes each, to find those that stand in other splits too."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.num_rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch of the reader."""
        if self.num_rows < MOST_HASHES:
            self.parts.append(text_hashes(batch))
            self.num_rows += batch.num_rows

    def finish(self) -> np.ndarray:
        """Return the hashes sorted, uint64."""
        return np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *self.parts]))


def text_hashes(batch: pa.RecordBatch) -> np.ndarray:
    """Return a hash of the texts of each row, its choices too, uint64 [N]. **Pure.**"""
    columns = texts_of(batch)
    if CHOICES in batch.schema.names:
        columns.append(["\0".join(each or "" for each in several) for several in batch.column(CHOICES).to_pylist()])
    digests = (
        hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest() for texts in zip(*columns, strict=True)
    )
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def count_known(hashes: np.ndarray, known: np.ndarray) -> int:
    """Return how many hashes are among the known ones, which are sorted. **Pure.**"""
    if not len(known):
        return 0
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return int(np.count_nonzero(known[places] == hashes))


def to_bytes(splits: Mapping[str, SplitFindings], label_note: str) -> bytes:
    """Return the findings for the cache. label_note: how the label column was read, "" if that is as expected."""
    return json.dumps({"label": label_note, "splits": {name: asdict(each) for name, each in splits.items()}}).encode()


def from_bytes(content: bytes) -> tuple[dict[str, SplitFindings], str]:
    """Return what `to_bytes` was given."""
    read = json.loads(content)
    return {name: SplitFindings(**each) for name, each in read["splits"].items()}, read["label"]
