"""Tokenised rows on disk: written once, published by one rename, memory-mapped by every rank of the node.

A table is a folder of flat arrays. Token ids of all rows stand one behind the other; ``offsets`` says where each begins.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from ringtune.train import data, disk
from ringtune.train.contract import StopRequested, UsageError

LAYOUT = 1  # raise it when the files below change their meaning
ROWS_PER_BATCH = 1_000
META_FILE = "table.json"  # written last: without it a table is not one


@dataclass(frozen=True)
class _Meta:
    """What the arrays are; also the proof that all of them were written."""

    num_rows: int
    num_tokens: int
    label_dtype: str | None
    has_token_types: bool
    pad_id: int
    pad_type: int
    padding_side: str
    bytes: dict[str, int]


def tokenizer_digest(tokenizer: Any) -> str:
    """Return a sha256 of everything that decides how the tokenizer cuts and numbers text."""
    digest = hashlib.sha256(type(tokenizer).__name__.encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Truncation and padding are set by every call and say nothing of the tokenizer itself.
        content = json.loads(backend.to_str())
        content.pop("truncation", None)
        content.pop("padding", None)
        digest.update(json.dumps(content, sort_keys=True).encode())
    else:
        digest.update(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    digest.update(
        json.dumps({name: str(each) for name, each in tokenizer.special_tokens_map.items()}, sort_keys=True).encode()
    )
    return digest.hexdigest()


def token_key(splits: data.Splits, task: data.Task, tokenizer: Any, max_seq_length: int) -> str:
    """Return the name under which the tokens of these rows are kept: everything they depend on, hashed. **Pure.**"""
    parts = [LAYOUT, splits.digest, repr(task), tokenizer_digest(tokenizer), max_seq_length]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def write(
    folder: Path,
    rows: Any,
    task: data.Task,
    tokenizer: Any,
    max_seq_length: int,
    should_stop: Callable[[], bool],
    progress: Callable[[int], None],
) -> None:
    """Tokenise rows into ``folder`` unless a whole table is there already.

    Survives a crash at any point: the table is written beside and renamed into place; of two writers the first wins.
    Raises StopRequested between batches when ``should_stop()``, UsageError for a tokenizer that cannot pad or a length
    that its model does not take.
    """
    if damage(folder) is None:
        return
    require_usable(tokenizer, max_seq_length)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        _write_arrays(temporary, rows, task, tokenizer, max_seq_length, should_stop, progress)
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, folder: Path) -> None:
    if folder.exists() and damage(folder) is not None:
        # Renamed away before it is deleted: nobody ever opens a half-deleted table under the good name.
        shutil.rmtree(disk.rename(folder, temporary.with_name(temporary.name + ".damaged")))
    try:
        disk.rename(temporary, folder)
    except OSError:
        if damage(folder) is not None:  # not somebody else's whole table, but a real failure
            raise


def _write_arrays(
    temporary: Path,
    rows: Any,
    task: data.Task,
    tokenizer: Any,
    max_seq_length: int,
    should_stop: Callable[[], bool],
    progress: Callable[[int], None],
) -> None:
    labelled = task.label_column in rows.column_names
    already_numbers = labelled and bool(getattr(rows.features[task.label_column], "names", None))
    padding = Padding.of(tokenizer)
    num_tokens = done = 0
    label_dtype = None
    streams: dict[str, BinaryIO] = {
        name: (temporary / name).open("wb") for name in ("ids", "types", "offsets", "labels")
    }
    streams["offsets"].write(np.zeros(1, dtype=np.int64).tobytes())
    for batch in rows.with_format("arrow").iter(batch_size=ROWS_PER_BATCH):
        if should_stop():
            raise StopRequested
        texts = [batch.column(name).to_pylist() for name in task.text_columns]
        encoded = encode(tokenizer, texts, max_seq_length)
        streams["ids"].write(encoded.ids.tobytes())
        if encoded.types is not None:
            streams["types"].write(encoded.types.tobytes())
        streams["offsets"].write((num_tokens + encoded.offsets[1:]).tobytes())
        if labelled:
            numbers = data.label_numbers(batch.column(task.label_column), task, already_numbers=already_numbers)
            label_dtype = str(numbers.dtype)
            streams["labels"].write(numbers.tobytes())
        num_tokens += len(encoded.ids)
        done += encoded.num_rows
        progress(done)
    for stream in streams.values():
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()
    meta = _Meta(
        num_rows=done,
        num_tokens=num_tokens,
        label_dtype=label_dtype,
        has_token_types=padding.has_types,
        pad_id=padding.id,
        pad_type=padding.type,
        padding_side=padding.side,
        bytes={name: (temporary / name).stat().st_size for name in streams},
    )
    disk.write_bytes(temporary / META_FILE, json.dumps(asdict(meta)).encode())
    disk.sync_folder(temporary)


def damage(folder: Path) -> str | None:
    """Return what is wrong with a table, None if it is whole."""
    try:
        meta = _Meta(**json.loads((folder / META_FILE).read_text()))
        for name, size in meta.bytes.items():
            if (folder / name).stat().st_size != size:
                return f"{name} has {(folder / name).stat().st_size} of {size} bytes"
    except (OSError, ValueError, TypeError) as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Padding:
    """How a tokenizer fills short rows."""

    id: int
    type: int
    side: str  # "left" or "right"
    has_types: bool  # whether the model takes token_type_ids

    @classmethod
    def of(cls, tokenizer: Any) -> Padding:
        """Return a tokenizer's own padding."""
        has_types = "token_type_ids" in tokenizer.model_input_names
        pad_type = int(getattr(tokenizer, "pad_token_type_id", 0))
        return cls(int(tokenizer.pad_token_id), pad_type, tokenizer.padding_side, has_types)


def require_usable(tokenizer: Any, max_seq_length: int) -> None:
    """Raise UsageError for a tokenizer that cannot pad, or a length that its model does not take."""
    limit = min(tokenizer.model_max_length, 1 << 20)
    if max_seq_length > limit:
        raise UsageError("--max_seq_length", f"{max_seq_length} is more than the model takes", legal=f"at most {limit}")
    if tokenizer.pad_token_id is None:
        raise UsageError("tokenizer", "it has no padding token", legal="a tokenizer with one")


def encode(tokenizer: Any, texts: Sequence[list[str]], max_seq_length: int) -> TokenRows:
    """Return the tokens of rows given as one list of texts, or two for pairs; longer rows are cut."""
    padding = Padding.of(tokenizer)
    encoded = tokenizer(
        *texts,
        truncation=True,
        max_length=max_seq_length,
        padding=False,
        return_token_type_ids=padding.has_types,
        return_attention_mask=False,
    )
    ids = encoded["input_ids"]
    types = encoded["token_type_ids"] if padding.has_types else None
    return TokenRows(
        ids=np.fromiter((token for row in ids for token in row), dtype=np.int32),
        types=None if types is None else np.fromiter((each for row in types for each in row), dtype=np.int8),
        offsets=np.cumsum([0, *map(len, ids)], dtype=np.int64),
        labels=None,
        padding=padding,
    )


class TokenRows:
    """Rows of token ids, all ids one behind the other; where each row begins is in ``offsets``, int64 [num_rows + 1]."""

    def __init__(
        self,
        ids: np.ndarray,
        types: np.ndarray | None,
        offsets: np.ndarray,
        labels: np.ndarray | None,
        padding: Padding,
    ) -> None:
        self.ids, self.types, self.offsets, self.labels, self.padding = ids, types, offsets, labels, padding
        self.num_rows = len(offsets) - 1
        self.lengths: np.ndarray = np.diff(offsets).astype(np.int32)  # tokens of each row, int32 [num_rows]

    def batch(self, rows: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """Return input_ids, attention_mask, token_type_ids (if the model takes them), int64 [B, T], and labels [B].

        T is the longest of the rows. Padding is the tokenizer's own, on its own side.
        """
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        width = int(lengths.max(initial=0))
        columns = np.arange(width)
        if self.padding.side == "left":
            columns = columns - (width - lengths)[:, None]
            mask = columns >= 0
        else:
            mask = columns < lengths[:, None]
        where = (self.offsets[rows][:, None] + columns)[mask]  # row by row, so values land in their own places
        result = {
            "input_ids": self._fill(mask, self.ids, where, self.padding.id),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        }
        if self.types is not None:
            result["token_type_ids"] = self._fill(mask, self.types, where, self.padding.type)
        if self.labels is not None:
            result["labels"] = torch.from_numpy(np.array(self.labels[rows]))
        return result

    @staticmethod
    def _fill(mask: np.ndarray, values: np.ndarray, where: np.ndarray, padding: int) -> torch.Tensor:
        filled = np.full(mask.shape, padding, dtype=np.int64)
        filled[mask] = values[where]
        return torch.from_numpy(filled)


class TokenTable(TokenRows):
    """Rows on disk, read-only and memory-mapped: their memory is the kernel's page cache, shared by all ranks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = _Meta(**json.loads((folder / META_FILE).read_text()))
        meta = self.meta
        super().__init__(
            ids=self._map("ids", "int32"),
            types=self._map("types", "int8") if meta.has_token_types else None,
            offsets=self._map("offsets", "int64"),
            labels=self._map("labels", meta.label_dtype) if meta.label_dtype else None,
            padding=Padding(meta.pad_id, meta.pad_type, meta.padding_side, meta.has_token_types),
        )

    @classmethod
    def open(cls, folder: Path) -> TokenTable:
        """Return the table in a folder. Raises UsageError if it is not whole."""
        reason = damage(folder)
        if reason is not None:
            raise UsageError(
                str(folder),
                f"the token table is damaged: {reason}",
                legal="a whole one",
                todo="delete it and start again",
            )
        return cls(folder)

    def _map(self, name: str, dtype: str) -> np.ndarray:
        if self.meta.bytes[name] == 0:
            return np.empty(0, dtype=dtype)
        return np.memmap(self.folder / name, dtype=dtype, mode="r")
