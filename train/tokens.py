"""Features: what a model reads, cut from the rows by its tokenizer. Those of all rows stand one behind the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ringtune.train import slow_tokenizer
from ringtune.train.contract import UsageError

IDS, TYPES = "input_ids", "token_type_ids"


def tokenizer_digest(tokenizer: Any) -> str:
    """Return a sha256 of everything that decides how the tokenizer cuts and numbers text."""
    return _digest(tokenizer, has_rules=True)


def is_digest_of(digest: str, tokenizer: Any) -> bool:
    """Return whether a digest of a checkpoint is the tokenizer's: as it is now, or as an earlier version of ringtune
    has it, which left out by what rules a slow one cuts."""
    return digest in (tokenizer_digest(tokenizer), _digest(tokenizer, has_rules=False))


def _digest(tokenizer: Any, *, has_rules: bool) -> str:
    digest = hashlib.sha256(type(tokenizer).__name__.encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Truncation and padding are set by every call and are no property of the tokenizer itself.
        content = json.loads(backend.to_str())
        content.pop("truncation", None)
        content.pop("padding", None)
        digest.update(json.dumps(content, sort_keys=True).encode())
    else:
        digest.update(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
        if has_rules:
            digest.update(slow_tokenizer.rules(tokenizer))
    digest.update(
        json.dumps({name: str(each) for name, each in tokenizer.special_tokens_map.items()}, sort_keys=True).encode()
    )
    return digest.hexdigest()


def require_fast(tokenizer: Any, purpose: str, todo: str = "") -> None:
    """Raise UsageError for a tokenizer that does not say which characters a piece stands for, as slow ones do not."""
    if not tokenizer.is_fast:
        raise UsageError(
            "--model_name_or_path",
            f"its {type(tokenizer).__name__} does not say which characters a piece stands for",
            legal=f"a model with a fast tokenizer (tokenizer.json), for {purpose}",
            todo=todo,
        )


@dataclass(frozen=True)
class Padding:
    """How a tokenizer fills short rows."""

    id: int
    type: int
    side: str  # "left" or "right"

    @classmethod
    def of(cls, tokenizer: Any) -> Padding:
        """Return a tokenizer's own padding."""
        pad_type = int(getattr(tokenizer, "pad_token_type_id", 0))
        return cls(int(tokenizer.pad_token_id), pad_type, tokenizer.padding_side)


@dataclass(frozen=True)
class Texts:
    """A text for each row, one behind the other as UTF-8."""

    content: np.ndarray  # uint8 [num_bytes]
    offsets: np.ndarray  # int64 [num_rows + 1]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Return texts as bytes."""
        several = [each.encode() for each in texts]
        lengths = np.fromiter(map(len, several), dtype=np.int64, count=len(several))
        return cls(np.frombuffer(b"".join(several), dtype=np.uint8), np.cumsum([0, *lengths], dtype=np.int64))

    def __getitem__(self, row: int) -> str:
        """Return the text of a row."""
        return self.content[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()


@dataclass(frozen=True)
class Features:
    """Features of any number of rows, as named arrays.

    token_columns: ``input_ids`` and what else there is for each token, [num_tokens, ...], the tokens of feature i at
    ``offsets[i]:offsets[i + 1]``. feature_columns: one value for each feature, [num_features, ...], such as ``labels``.
    """

    token_columns: Mapping[str, np.ndarray]
    offsets: np.ndarray  # int64 [num_features + 1]
    feature_columns: Mapping[str, np.ndarray]
    row_of: np.ndarray  # int64 [num_features]: the input row a feature comes from
    num_terms: np.ndarray  # int32 [num_features]: the terms of the loss it gives
    lengths: np.ndarray  # int32 [num_features]: its tokens
    padding: Padding
    texts: Texts | None = None  # of each row, what its predictions and scores need beside numbers

    @property
    def num_features(self) -> int:
        """Features of all rows."""
        return len(self.offsets) - 1


def encode(tokenizer: Any, texts: Sequence[list[str]], max_seq_length: int) -> Features:
    """Return one feature, without labels, for each row; longer rows are cut. texts: one list, or two for pairs."""
    has_types = TYPES in tokenizer.model_input_names
    encoded = tokenizer(
        *texts,
        truncation=True,
        max_length=max_seq_length,
        padding=False,
        return_token_type_ids=has_types,
        return_attention_mask=False,
    )
    rows = encoded[IDS]
    columns = {IDS: joined(rows, np.int32)}
    if has_types:
        columns[TYPES] = joined(encoded[TYPES], np.int8)
    lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
    return Features(
        token_columns=columns,
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        feature_columns={},
        row_of=np.arange(len(rows), dtype=np.int64),
        num_terms=np.ones(len(rows), dtype=np.int32),
        lengths=lengths,
        padding=Padding.of(tokenizer),
    )


def uncut_lengths(tokenizer: Any, texts: Sequence[list[str]]) -> np.ndarray:
    """Return the tokens that rows have before any is cut, int64 [N]. texts: as `encode` takes them.

    It sets the tokenizer's truncation: not while another thread uses it.
    """
    rows = tokenizer(*texts, truncation=False, padding=False, return_attention_mask=False)[IDS]
    return np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))


def pieces(tokenizer: Any, texts: Sequence[str], **more: Any) -> Any:
    """Return what a tokenizer makes of whole texts, without special tokens. more: what else it is to return.

    It sets the tokenizer's truncation: not while another thread uses it.
    """
    return tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
        **more,
    )


def joined(rows: Sequence[Sequence[int]], dtype: type) -> np.ndarray:
    """Return the numbers of all rows, one row behind the other. **Pure.**"""
    return np.fromiter((each for row in rows for each in row), dtype=dtype)


def term_places(num_terms: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the numbers of the terms of chosen features, in their order, among those of all features. **Pure.**

    num_terms: int [num_features]. int64 [terms of the chosen features].
    """
    starts = np.cumsum(num_terms, dtype=np.int64) - num_terms
    counts = num_terms[chosen].astype(np.int64)
    before = np.cumsum(counts) - counts
    return np.asarray(np.repeat(starts[chosen] - before, counts) + np.arange(int(counts.sum())))


def collate(
    features: Features, chosen: Sequence[int] | np.ndarray, fill: Mapping[str, int] | None = None
) -> dict[str, torch.Tensor]:
    """Return a batch: token columns and ``attention_mask``, int64 [B, T], and the feature columns, [B, ...].

    T is the longest of the chosen features. Padding is the tokenizer's own, on its own side. fill: what other token
    columns than the tokenizer's have there, by name; default: 0.
    """
    chosen = np.asarray(chosen, dtype=np.int64)
    lengths = features.lengths[chosen]
    width = int(lengths.max(initial=0))
    columns = np.arange(width)
    if features.padding.side == "left":
        columns = columns - (width - lengths)[:, None]
        mask = columns >= 0
    else:
        mask = columns < lengths[:, None]
    where = (features.offsets[chosen][:, None] + columns)[mask]  # row by row: each value lands in its own place
    fill = {**(fill or {}), IDS: features.padding.id, TYPES: features.padding.type}
    batch = {"attention_mask": torch.from_numpy(mask.astype(np.int64))}
    for name, values in features.token_columns.items():
        filled = np.full(mask.shape, fill.get(name, 0), dtype=np.int64)
        filled[mask] = values[where]
        batch[name] = torch.from_numpy(filled)
    for name, values in features.feature_columns.items():
        batch[name] = torch.from_numpy(np.array(values[chosen]))
    return batch
