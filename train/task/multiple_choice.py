"""One of the choices that may follow a context: each gets a number, and the softmax is over the choices of its row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from ringtune.train import scores
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.json_rows import shown
from ringtune.train.packing import MASK
from ringtune.train.scores import Answers, Scored, Scores
from ringtune.train.task import choice_labels, choices
from ringtune.train.task.choice_labels import LETTERS, NO_CHOICE
from ringtune.train.task.choices import CHOICE_LENGTHS, IS_CHOICE, PLACES
from ringtune.train.task.classification import probabilities, softmax
from ringtune.train.task.labels import missing_label
from ringtune.train.task.sequence import LABELS, SequenceTask
from ringtune.train.tokens import IDS, TYPES, Features

MISSING = float(np.finfo(np.float32).min)  # output for a missing choice: finite, and of probability 0
MOST_CHOICES = 100  # of a row for a model whose training is not known


@dataclass(frozen=True)
class MultipleChoice(SequenceTask):
    """Choose one of a row's choices. The model gives a number for each; one term of the loss is a row."""

    num_choices: int | None  # the most of any row of the training; None: not known
    labels_are: str  # how labels name a choice: of `choice_labels.SCHEMES`

    kind: ClassVar[str] = "multiple_choice"
    auto_class: ClassVar[str] = "AutoModelForMultipleChoice"
    pipeline: ClassVar[str] = ""  # transformers has none
    score_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    @property
    def width(self) -> int:
        """C: the most choices of a row."""
        return self.num_choices or MOST_CHOICES

    def default_score(self, task_name: str | None) -> str:
        """Return accuracy."""
        return "accuracy"

    def label_note(self) -> str:
        """Return the number of choices, and how labels name one."""
        return f"one of {self.width} choices, {choice_labels.WORDS[self.labels_are]}"

    def describe(self) -> str:
        """Return the number of choices."""
        return f"one of {self.num_choices} choices" if self.num_choices else "one of a row's choices"

    def model_settings(self) -> dict[str, Any]:
        """Return that the head gives one number: to each choice, however many there are."""
        return {"num_labels": 1}

    # Features and batches

    def encode(self, rows: pa.RecordBatch, tokenizer: Any, max_seq_length: int) -> Features:
        """Return one feature for each row, with ``labels`` if the rows have a label column."""
        features = choices.encode(tokenizer, rows, max_seq_length, self.width)
        if "label" not in rows.schema.names:
            return features
        pairs = zip(rows.column("label").to_pylist(), choices.choices_of(rows), strict=True)
        numbers = [choice_labels.number_of(label, several, self.labels_are) for label, several in pairs]
        columns = {**features.feature_columns, LABELS: np.array(numbers, dtype=np.int64)}
        return replace(features, feature_columns=columns)

    def has_label(self, labels: np.ndarray) -> np.ndarray:
        """Return which labels name a choice, bool [N]."""
        return np.asarray(labels != NO_CHOICE)

    def wrong_label(self, where: str, label: str | None) -> UsageError:
        """Return the error of a label that names no choice of its row."""
        if label is None or not label.strip():
            return missing_label(where, str(self.columns and self.columns.label))
        return UsageError(
            where,
            f"the label {shown(label)} names none of the row's choices",
            legal=f"{choice_labels.WORDS[self.labels_are]}, as in the training rows",
        )

    def collate(self, features: Features, chosen: Sequence[int] | np.ndarray, seed: int) -> dict[str, torch.Tensor]:
        """Return a padded batch of choices; nothing in it is random."""
        return choices.collate(features, chosen)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return what the model takes: N rows of one choice each, [N, 1, T], or [1, 1, T] where they are packed.

        Rows may so have any number of choices; the model itself does nothing across them. Positions stay [1, T]: all
        models take them so, and DistilBERT's of transformers 5.23 no others.
        """
        taken = {name: each for name, each in batch.items() if name not in (LABELS, IS_CHOICE, PLACES)}
        return {name: each[:, None] if name in (IDS, TYPES, MASK) else each for name, each in taken.items()}

    def losses(self, output: Any, batch: Mapping[str, torch.Tensor], label_smoothing: float) -> torch.Tensor:
        """Return the cross entropy of each row over its choices, fp32 [B]; smoothing spreads over those alone."""
        is_choice, labels = batch[IS_CHOICE], batch[LABELS]
        logs = F.log_softmax(self.outputs(output, batch), dim=1)
        own = -logs.gather(1, labels[:, None])[:, 0]
        if not label_smoothing:
            return own
        spread = -logs.masked_fill(~is_choice, 0).sum(dim=1) / is_choice.sum(dim=1)
        return (1 - label_smoothing) * own + label_smoothing * spread

    def outputs(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the number of each choice, float32 [B, C], MISSING where there is none."""
        numbers: torch.Tensor = output.logits.float().flatten()
        shape = batch[IS_CHOICE].shape
        empty = torch.full((shape.numel(),), MISSING, device=numbers.device)
        return empty.scatter(0, batch[PLACES], numbers).view(shape)

    # Predictions and scores

    def output_names(self, rows_are_words: bool, top_k: int | None) -> list[str]:
        """Return the names of `predict_rows`."""
        nothing = np.zeros((0, self.width), dtype=np.float32)
        return list(self._columns_of(nothing, nothing, [], top_k))

    def predict_rows(
        self, outputs: np.ndarray, features: Features, rows: pa.RecordBatch | None, top_k: int | None = None
    ) -> dict[str, pa.Array]:
        """Return the best choice of each row as labels name it, its text, and the probability of each choice.

        top_k: instead of these the best ones, with their probabilities; null where a row has fewer.
        """
        texts = None if rows is None else choices.choices_of(rows)
        return self._columns_of(outputs, features.feature_columns[CHOICE_LENGTHS], texts, top_k)

    def _columns_of(
        self, outputs: np.ndarray, lengths: np.ndarray, texts: Sequence[choice_labels.Choices] | None, top_k: int | None
    ) -> dict[str, pa.Array]:
        shares = probabilities(outputs) if len(outputs) else outputs
        best_first = np.argsort(-outputs, axis=1, kind="stable")
        found: dict[str, pa.Array] = {}
        for place in range(min(top_k or 1, self.width)):
            numbers, end = best_first[:, place], f"_{place + 1}" if place else ""
            is_missing = lengths[np.arange(len(numbers)), numbers] == 0
            found[f"label{end}"] = pa.array(self._names[numbers], mask=is_missing)
            if texts is not None:
                chosen = [
                    None if no else row[number] for row, number, no in zip(texts, numbers, is_missing, strict=True)
                ]
                found[f"choice{end}"] = pa.array(chosen, pa.string())
            if top_k is not None:
                found[f"probability{end}"] = pa.array(shares[np.arange(len(shares)), numbers], mask=is_missing)
        if top_k is not None:
            return found
        if self.num_choices is None:
            ends = [int(np.flatnonzero(each).max()) + 1 for each in lengths]
            # As the numbers with the fewest digits that name them: see `writer.rows_of`.
            several = [[float(str(each)) for each in row[:end]] for row, end in zip(shares, ends, strict=True)]
            return found | {"probabilities": pa.array(several, pa.list_(pa.float64()))}
        return found | {f"probability_{name}": pa.array(each) for name, each in zip(self._names, shares.T, strict=True)}

    @property
    def _names(self) -> np.ndarray:
        """What labels call the choices, [C]: numbers, or letters; by its text a choice is called only in its row."""
        if self.labels_are == LETTERS:
            return np.array([chr(ord("A") + number) for number in range(self.width)], dtype=object)
        return np.arange(self.width) + (self.labels_are == choice_labels.FROM_1)

    def answers(self, outputs: np.ndarray) -> Answers:
        """Return the number of the best choice, from 0, and the probability of each."""
        return Answers(outputs.argmax(axis=1), softmax(outputs))

    def scores(self, parts: Iterable[Scored]) -> Scores | None:
        """Return loss and accuracy, holding one part at a time."""
        num_rows = num_right = 0
        for outputs, labels in parts:
            num_rows += len(labels)
            num_right += int((outputs.argmax(axis=1) == labels).sum())
        if not num_rows:
            return None
        loss = scores.total_cross_entropy(parts) / num_rows
        return Scores(num_rows, {"loss": loss, "accuracy": num_right / num_rows})

    def to_json(self) -> dict[str, Any]:
        """Return the task for task.json."""
        columns = self.columns
        return {
            **self._own_json(),
            "form": columns.form if columns else None,
            "begin": columns.begin if columns else None,
            "num_choices": self.num_choices,
            "labels_are": self.labels_are,
        }


def from_json(columns: Columns | None, content: Mapping[str, Any]) -> MultipleChoice:
    """Return the task that `MultipleChoice.to_json` gave; KeyError or ValueError for anything else. **Pure.**"""
    num_choices, labels_are = content["num_choices"], str(content["labels_are"])
    if labels_are not in choice_labels.SCHEMES:
        raise ValueError(f"labels are {labels_are!r}")
    columns = columns and replace(columns, begin=content["begin"])
    return MultipleChoice(columns, None if num_choices is None else int(num_choices), labels_are)


def of_model() -> MultipleChoice:
    """Return the task of a model that was trained elsewhere: rows may have any number of choices. **Pure.**"""
    return MultipleChoice(None, None, choice_labels.FROM_0)
