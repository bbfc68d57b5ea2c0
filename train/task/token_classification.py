"""A tag for each word, and from the tags the entities: named-entity recognition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from ringtune.train import words
from ringtune.train.columns import Columns, shown_names
from ringtune.train.contract import UsageError
from ringtune.train.json_rows import shown
from ringtune.train.packing import PACKING
from ringtune.train.scores import Answers, Scored, Scores
from ringtune.train.task import pieces, tags
from ringtune.train.task.classification import probabilities
from ringtune.train.task.entity_scores import EntityCounts
from ringtune.train.task.pieces import NO_TAG, NO_TERM, NUM_WORDS, WORD, WORDS
from ringtune.train.task.sequence import LABELS
from ringtune.train.tokens import Features, collate

_ENTITY = pa.list_(
    pa.struct([("start", pa.int64()), ("end", pa.int64()), ("label", pa.string()), ("probability", pa.float64())])
)


@dataclass(frozen=True)
class TokenClassification:
    """Choose a tag for each word. A term of the loss is a word; only its first piece has one."""

    columns: Columns | None
    classes: tuple[str, ...]  # tags of IOB2, in the order of the model's outputs
    scheme: str  # of the training rows, in which predicted tags are written

    kind: ClassVar[str] = "token_classification"
    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    pipeline: ClassVar[str] = "token-classification"
    reads_first_token: ClassVar[bool] = False
    cuts_rows: ClassVar[bool] = False
    has_several_labels: ClassVar[bool] = False
    score_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "precision", "recall", "f1")

    @property
    def width(self) -> int:
        """Number of tags."""
        return len(self.classes)

    @property
    def types(self) -> tuple[str, ...]:
        """Types of entities."""
        return tuple(dict.fromkeys(tag[2:] for tag in self.classes if tag != tags.OUTSIDE))

    def default_score(self, task_name: str | None) -> str:
        """Return F1 of entities."""
        return "f1"

    def label_note(self) -> str:
        """Return the number of types, and the scheme."""
        return f"{len(self.types)} types of entities, {self.scheme.upper()}"

    def describe(self) -> str:
        """Return the types."""
        return f"entities {', '.join(self.types)}"

    def model_settings(self) -> dict[str, Any]:
        """Return the names of the tags."""
        return {
            "num_labels": self.width,
            "id2label": dict(enumerate(self.classes)),
            "label2id": {name: number for number, name in enumerate(self.classes)},
        }

    # Features

    def encode(self, rows: pa.RecordBatch, tokenizer: Any, max_seq_length: int) -> Features:
        """Return the windows of each row, one for most: see `pieces.encode`."""
        texts = rows.column("text/0").to_pylist()
        bounds = bounds_of(rows)
        numbers = self.labels(rows.column("label").to_pylist()) if "label" in rows.schema.names else [None] * len(texts)
        return pieces.encode(tokenizer, texts, bounds, numbers, max_seq_length)

    def labels(self, labels: Sequence[Sequence[str] | None]) -> list[np.ndarray | None]:
        """Return the numbers of each row's tags, read as IOB2; None for a row without, or with one that is unknown."""
        numbers = {name: number for number, name in enumerate(self.classes)}

        def numbers_of(row: Sequence[str] | None) -> np.ndarray | None:
            if not isinstance(row, list) or not all(map(tags.is_tag, row)):
                return None
            found = [numbers.get(tag) for tag in tags.to_iob2(row)]
            return None if None in found else np.array(found, dtype=np.int32)

        return list(map(numbers_of, labels))

    def count_labels(self, features: Features) -> dict[str, int]:
        """Return nothing: a feature has many tags."""
        return {}

    def targets(self, features: Features) -> np.ndarray | None:
        """Return tag, word and row of each term, int64 [terms, 3]; None if no term has a tag."""
        labels = features.token_columns[LABELS]
        is_term = labels != NO_TERM
        rows = np.repeat(features.row_of, features.num_terms)
        found = np.stack([labels[is_term], features.token_columns[WORD][is_term], rows], axis=1).astype(np.int64)
        return found if (found[:, 0] != NO_TAG).any() else None

    def has_label(self, labels: np.ndarray) -> np.ndarray:
        """Return which terms have a tag, bool [terms]. labels: of `targets`."""
        return np.asarray(labels[:, 0] != NO_TAG)

    def wrong_label(self, where: str, label: Any) -> UsageError:
        """Return the error of a row with a tag that does not occur in the training rows."""
        column = str(self.columns and self.columns.label)[:40]
        if label is None:
            return UsageError(where, f"there are no tags in column {column!r}", legal="a tag for each word")
        wrong = next((tag for tag in label if not tags.is_tag(tag) or tag[2:] not in ("", *self.types)), None)
        return UsageError(
            where,
            f"the tag {shown(wrong)} in column {column!r} does not occur in the training rows",
            legal=f"O, and tags of {shown_names(self.types)}",
        )

    def count_oddities(self, rows: pa.RecordBatch, features: Features) -> dict[str, int]:
        """Return how many words, rows and entities are not read as they stand, by what becomes of them."""
        num_windows = np.bincount(features.row_of, minlength=rows.num_rows)
        first_of_row = np.unique(features.row_of, return_index=True)[1]
        num_words = int(features.feature_columns[NUM_WORDS][first_of_row].sum())
        widened = rows.column("widened").to_pylist() if "widened" in rows.schema.names else []
        return {
            "words give no piece: they are O, in training, scores and predictions": num_words
            - int(features.num_terms.sum()),
            "rows are longer than --max_seq_length and are read in overlapping windows": int((num_windows > 1).sum()),
            "entities begin or end within a word: they are taken as whole words": sum(each or 0 for each in widened),
        }

    # Training

    def collate(self, features: Features, chosen: Sequence[int] | np.ndarray, seed: int) -> dict[str, torch.Tensor]:
        """Return a padded batch; nothing in it is random."""
        return collate(features, chosen, fill={LABELS: NO_TERM})

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the batch without tags and numbers of words."""
        return {name: each for name, each in batch.items() if name not in (LABELS, WORD, NUM_WORDS)}

    def losses(self, output: Any, batch: Mapping[str, torch.Tensor], label_smoothing: float) -> torch.Tensor:
        """Return the cross entropy of each word at its first piece and 0 at other tokens, fp32 [B * T].

        Tokens without a term are not taken out: their number is not known to the host of a GPU.
        """
        logits, labels = self.token_logits(output, batch), self._terms(batch).flatten()
        return F.cross_entropy(logits, labels, ignore_index=NO_TERM, reduction="none", label_smoothing=label_smoothing)

    def token_logits(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the logits of each token, fp32 [B * T, W]."""
        logits: torch.Tensor = output.logits
        return logits.float().flatten(0, 1)

    def is_term(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return which tokens have a term, bool [B * T]."""
        return self._terms(batch).flatten() != NO_TERM

    def outputs(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the logits of each term, float32 [terms, W], in the order of the batch's features."""
        logits: torch.Tensor = output.logits
        return logits[self._terms(batch) != NO_TERM].float()

    def _terms(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the batch's tags, [B, T]; a packed batch may end with copies of its last token, which are no terms."""
        found: torch.Tensor = batch[LABELS]
        if PACKING not in batch or batch[PACKING].num_tokens == found.shape[1]:
            return found
        return F.pad(
            found[:, : batch[PACKING].num_tokens], (0, found.shape[1] - batch[PACKING].num_tokens), value=NO_TERM
        )

    # Predictions and scores

    def output_names(self, rows_are_words: bool, top_k: int | None) -> list[str]:
        """Return the names of `predict_rows`."""
        return ["tags"] if rows_are_words else ["entities"]

    def predict_rows(
        self, outputs: np.ndarray, features: Features, rows: pa.RecordBatch | None, top_k: int | None = None
    ) -> dict[str, pa.Array]:
        """Return the tags of each row of words, or the entities of each row of text. rows: None: tags are asked for."""
        by_row = list(self._rows(outputs, features))
        if rows is None or WORDS in rows.schema.names:
            found = [tags.written(row.entities, row.num_words, self.scheme) for row in by_row]
            return {"tags": pa.array(found, pa.list_(pa.string()))}
        spans = [row.spans(bounds) for row, bounds in zip(by_row, bounds_of(rows), strict=True)]
        return {"entities": pa.array(spans, _ENTITY)}

    def _rows(self, outputs: np.ndarray, features: Features) -> Iterator[_Row]:
        """Give what is predicted for each row."""
        labels = features.token_columns[LABELS]
        numbers = features.token_columns[WORD][labels != NO_TERM]
        best, shares = outputs.argmax(axis=1), probabilities(outputs)
        first_of_row = np.unique(features.row_of, return_index=True)[1]
        num_words = features.feature_columns[NUM_WORDS][first_of_row].tolist()
        ends = np.cumsum(np.add.reduceat(features.num_terms, first_of_row)).tolist()
        start = 0
        for count, end in zip(num_words, ends, strict=True):
            found = [tags.OUTSIDE] * count
            probability = np.ones(count)
            for term in range(start, end):
                found[numbers[term]] = self.classes[best[term]]
                probability[numbers[term]] = shares[term, best[term]]
            yield _Row(tags.entities(found), count, probability)
            start = end

    def answers(self, outputs: np.ndarray) -> Answers | None:
        """Return None: scores by name are of one answer for each row."""
        return None

    def fitted(self, outputs: np.ndarray, labels: np.ndarray) -> TokenClassification:
        """Return the task itself: there is nothing to fit."""
        return self

    def scores(self, parts: Iterable[Scored]) -> Scores | None:
        """Return loss and accuracy of words; precision, recall and F1 of entities, holding one part at a time."""
        counts = EntityCounts(self.classes)
        for outputs, targets in parts:
            counts.add(outputs, targets)
        return counts.scores() if counts.num_rows else None

    def to_json(self) -> dict[str, Any]:
        """Return the task for task.json."""
        columns = self.columns
        return {
            "kind": self.kind,
            "text_columns": list(columns.text) if columns else None,
            "label_column": columns.label if columns else None,
            "form": columns.form if columns else None,
            "classes": list(self.classes),
            "scheme": self.scheme,
        }


@dataclass(frozen=True)
class _Row:
    """What is predicted for a row."""

    entities: list[tags.Entity]
    num_words: int
    probability: np.ndarray  # of each word's tag

    def spans(self, bounds: words.Bounds) -> list[dict[str, Any]]:
        """Return the entities by their characters; the probability is the mean of their words'."""
        return [
            {
                "start": bounds[start][0],
                "end": bounds[stop - 1][1],
                "label": kind,
                "probability": float(str(np.float32(self.probability[start:stop].mean()))),
            }
            for kind, start, stop in self.entities
        ]


def bounds_of(rows: pa.RecordBatch) -> list[words.Bounds]:
    """Return where the words of each row are: those of a list of words, or those found in a text. **Pure.**"""
    if WORDS not in rows.schema.names:
        return list(map(words.find, rows.column("text/0").to_pylist()))
    flat = rows.column(WORDS).to_pylist()
    return [list(zip(each[::2], each[1::2], strict=True)) for each in flat]
