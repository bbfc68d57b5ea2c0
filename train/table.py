"""Features on disk: written once, published by one rename with checksums, memory-mapped by every rank of the host.

A table is one file of raw numbers for each array of `Features`, ``NAME.ARRAY``, and ``NAME.json``, which says what they
are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ringtune.train import publish
from ringtune.train.tokens import Features, Padding, Texts

LAYOUT = 4  # raise it when the files change their meaning, or rows come to be read otherwise
_OFFSETS, _ROW_OF, _NUM_TERMS = "offsets", "row_of", "num_terms"
_TEXTS, _TEXT_OFFSETS = "texts", "text_offsets"  # only of features that have texts


@dataclass
class _Array:
    dtype: str
    shape: tuple[int, ...]  # of one token or feature; () for a number


@dataclass
class _Meta:
    """What the files of a table are."""

    padding: Padding
    num_tokens: int = 0
    num_features: int = 0
    num_texts: int = 0
    num_bytes: int = 0  # of the texts
    tokens: dict[str, _Array] = field(default_factory=dict)
    features: dict[str, _Array] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _Meta:
        raw = json.loads(path.read_bytes())
        arrays = {
            kind: {name: _Array(each["dtype"], tuple(each["shape"])) for name, each in raw[kind].items()}
            for kind in ("tokens", "features")
        }
        return cls(
            Padding(**raw["padding"]),
            raw["num_tokens"],
            raw["num_features"],
            raw.get("num_texts", 0),
            raw.get("num_bytes", 0),
            tokens=arrays["tokens"],
            features=arrays["features"],
        )


class TableWriter:
    """Appends features to the files of a table that is being written."""

    def __init__(self, new: publish.NewFolder, name: str) -> None:
        self.new, self.name = new, name
        self.meta: _Meta | None = None
        self.num_rows = 0
        self.files: dict[str, publish.HashedFile] = {}
        self.stack = ExitStack()

    def append(self, features: Features, num_rows: int) -> None:
        """Append the features of the next ``num_rows`` rows."""
        if self.meta is None:
            self.meta = _Meta(features.padding)
            self._file(_OFFSETS).write(np.zeros(1, dtype=np.int64).tobytes())
        for name, values in features.token_columns.items():
            self._write(name, values, self.meta.tokens)
        for name, values in features.feature_columns.items():
            self._write(name, values, self.meta.features)
        self._file(_OFFSETS).write((self.meta.num_tokens + features.offsets[1:]).tobytes())
        self._file(_ROW_OF).write((self.num_rows + features.row_of).tobytes())
        self._file(_NUM_TERMS).write(features.num_terms.tobytes())
        if features.texts is not None:
            self._append_texts(features.texts, self.meta)
        self.meta.num_tokens += int(features.offsets[-1])
        self.meta.num_features += features.num_features
        self.num_rows += num_rows

    def _append_texts(self, texts: Texts, meta: _Meta) -> None:
        if not meta.num_texts:
            self._file(_TEXT_OFFSETS).write(np.zeros(1, dtype=np.int64).tobytes())
        self._file(_TEXTS).write(texts.content.tobytes())
        self._file(_TEXT_OFFSETS).write((meta.num_bytes + texts.offsets[1:]).tobytes())
        meta.num_texts += len(texts.offsets) - 1
        meta.num_bytes += int(texts.offsets[-1])

    def _write(self, name: str, values: np.ndarray, arrays: dict[str, _Array]) -> None:
        arrays.setdefault(name, _Array(str(values.dtype), values.shape[1:]))
        self._file(name).write(np.ascontiguousarray(values).tobytes())

    def _file(self, name: str) -> publish.HashedFile:
        if name not in self.files:
            self.files[name] = self.stack.enter_context(self.new.open(f"{self.name}.{name}"))
        return self.files[name]

    @property
    def num_features(self) -> int:
        """Features appended so far."""
        return self.meta.num_features if self.meta else 0

    def close(self) -> None:
        """Flush all files and write what they are."""
        self.stack.close()
        assert self.meta is not None, "a table has at least one row"
        self.new.write(f"{self.name}.json", json.dumps(asdict(self.meta)).encode())


def open_table(folder: Path, name: str) -> Features:
    """Return the features of a table, read-only: their memory is the kernel's page cache, shared by all ranks."""
    meta = _Meta.read(folder / f"{name}.json")

    def mapped(array: str, dtype: Any, *shape: int) -> np.ndarray:
        if 0 in shape:
            return np.empty(shape, dtype=dtype)
        return np.memmap(folder / f"{name}.{array}", dtype=dtype, mode="r", shape=shape)

    def columns(arrays: Mapping[str, _Array], length: int) -> dict[str, np.ndarray]:
        return {name: mapped(name, each.dtype, length, *each.shape) for name, each in arrays.items()}

    texts = None
    if meta.num_texts:
        text_offsets = mapped(_TEXT_OFFSETS, np.int64, meta.num_texts + 1)
        texts = Texts(mapped(_TEXTS, np.uint8, meta.num_bytes), text_offsets)
    offsets = mapped(_OFFSETS, np.int64, meta.num_features + 1)
    return Features(
        token_columns=columns(meta.tokens, meta.num_tokens),
        offsets=offsets,
        feature_columns=columns(meta.features, meta.num_features),
        row_of=mapped(_ROW_OF, np.int64, meta.num_features),
        num_terms=mapped(_NUM_TERMS, np.int32, meta.num_features),
        lengths=np.diff(offsets).astype(np.int32),
        padding=meta.padding,
        texts=texts,
    )
