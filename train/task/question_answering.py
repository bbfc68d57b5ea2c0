"""The part of a context that answers a question, or none: extractive question answering as SQuAD has it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.rows import texts_of
from ringtune.train.scores import Answers, Scored, Scores
from ringtune.train.task import answer_scores, passages, spans
from ringtune.train.task.answer_scores import Judged
from ringtune.train.task.passages import CUT, END, LESS_SHARED, NOT_WHOLE, ODD, PLACE, START
from ringtune.train.task.spans import RowSpans
from ringtune.train.tokens import Features, Texts, collate

_SPAN = pa.struct([("answer", pa.string()), ("probability", pa.float64()), ("start", pa.int64()), ("end", pa.int64())])


@dataclass(frozen=True)
class QuestionAnswering:
    """Find the answer to a question in its context. A term of the loss is a window of the context."""

    columns: Columns | None
    doc_stride: int | None = None  # tokens that neighbouring windows share; None: `passages.encode` decides
    has_unanswered: bool | None = None  # whether training rows had no answer; None: not known, and none is given
    n_best_size: int = 20  # spans that are kept of a window and of a row
    max_answer_length: int = 30  # tokens
    null_score_diff_threshold: float = 0.0  # no answer where that scores more than this above the best span

    kind: ClassVar[str] = "question_answering"
    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    pipeline: ClassVar[str] = ""  # transformers 5 has none
    reads_first_token: ClassVar[bool] = False
    cuts_rows: ClassVar[bool] = False
    has_several_labels: ClassVar[bool] = False
    score_names: ClassVar[tuple[str, ...]] = ("loss", "exact_match", "f1")

    @property
    def width(self) -> int:
        """W: what `spans.numbers` gives of a window."""
        return spans.width(self.n_best_size)

    def default_score(self, task_name: str | None) -> str:
        """Return F1 of words."""
        return "f1"

    def label_note(self) -> str:
        """Return whether questions may have no answer."""
        return "a question may have none" if self.has_unanswered else "each question has one"

    def describe(self) -> str:
        """Return what is answered, and from where on nothing is."""
        if not self.has_unanswered:
            return "an answer from the context to each question"
        beats = f"that scores more than {self.null_score_diff_threshold:g} above the best one"
        return f"an answer from the context to each question, or none where {beats}"

    def model_settings(self) -> dict[str, Any]:
        """Return two outputs for each token: start and end."""
        return {"num_labels": 2}

    # Features

    def encode(self, rows: pa.RecordBatch, tokenizer: Any, max_seq_length: int) -> Features:
        """Return the windows of each row, one for most: see `passages.encode`. The first true answer is learnt."""
        questions, contexts = [*texts_of(rows), [""] * rows.num_rows][:2]
        labels = [None] * rows.num_rows
        if "label" in rows.schema.names:
            labels = rows.column("label").to_pylist()
        first = [(each[0]["start"], each[0]["start"] + len(each[0]["text"])) if each else None for each in labels]
        known = [each is not None for each in labels]
        texts = Texts.of([_kept(context, label) for context, label in zip(contexts, labels, strict=True)])
        return passages.encode(tokenizer, questions, contexts, first, known, texts, max_seq_length, self.doc_stride)

    def targets(self, features: Features) -> np.ndarray | None:
        """Return number in its row, windows of that row, and the row's text of each window, as texts, [terms, 3].

        None if no row has answers. A row's text is `_kept`.
        """
        assert features.texts is not None
        found = np.empty((features.num_features, 3), dtype=object)
        for start, stop in _rows(features.row_of):
            found[start:stop, 0] = list(map(str, range(stop - start)))
            found[start:stop, 1:] = str(stop - start), features.texts[int(features.row_of[start])]
        return found if self.has_label(found).any() else None

    def has_label(self, labels: np.ndarray) -> np.ndarray:
        """Return which windows are of rows whose answers are known, bool [terms]. labels: of `targets`."""
        known: dict[str, bool] = {}
        for text in labels[:, 2]:
            if text not in known:
                known[text] = _context_and_truths(text)[1] is not None
        return np.array([known[text] for text in labels[:, 2]], dtype=bool)

    def wrong_label(self, where: str, label: Any) -> UsageError:
        """Return the error of a row without answers."""
        name = str(self.columns and self.columns.label)[:40]
        return UsageError(
            where, f"there are no answers in column {name!r}", legal="answers, or an empty list for a question without"
        )

    def count_labels(self, features: Features) -> dict[str, int]:
        """Return nothing: answers are no classes."""
        return {}

    def count_oddities(self, rows: pa.RecordBatch, features: Features) -> dict[str, int]:
        """Return how many rows are read in windows, and what of rows is not read as it stands."""
        first_of_row = np.unique(features.row_of, return_index=True)[1]
        odd = features.feature_columns[ODD][first_of_row]
        num_windows = np.bincount(features.row_of, minlength=rows.num_rows)
        return {
            "rows are longer than --max_seq_length and are read in overlapping windows": int((num_windows > 1).sum()),
            "questions are cut: they leave the context less than half of --max_seq_length": int(
                np.count_nonzero(odd & CUT)
            ),
            "rows have windows that share less than --doc_stride: their questions leave no more": int(
                np.count_nonzero(odd & LESS_SHARED)
            ),
            "answers stand whole in no window: their rows are learnt as questions without one": int(
                np.count_nonzero(odd & NOT_WHOLE)
            ),
        }

    # Training

    def collate(self, features: Features, chosen: Sequence[int] | np.ndarray, seed: int) -> dict[str, torch.Tensor]:
        """Return a padded batch; nothing in it is random."""
        return collate(features, chosen, fill={START: -1, END: -1})

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the batch without what the model does not take."""
        return {name: each for name, each in batch.items() if name not in (PLACE, START, END, ODD)}

    def losses(self, output: Any, batch: Mapping[str, torch.Tensor], label_smoothing: float) -> torch.Tensor:
        """Return of each window the mean of the cross entropies of start and end, fp32 [B]."""
        return spans.losses(output, batch, label_smoothing)

    def outputs(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return loss, score of no answer and best spans of each window, float32 [B, W]."""
        return spans.numbers(output, batch, self.n_best_size, self.max_answer_length)

    # Predictions and scores

    def output_names(self, rows_are_words: bool, top_k: int | None) -> list[str]:
        """Return the names of `predict_rows`."""
        return ["answer", "probability", "start", "end", *(["n_best"] if top_k else [])]

    def predict_rows(
        self, outputs: np.ndarray, features: Features, rows: pa.RecordBatch | None, top_k: int | None = None
    ) -> dict[str, pa.Array]:
        """Return the answer of each row, its probability among the best, and its characters, null for no answer.

        With ``top_k``, also the most probable answers as a list. A threshold other than 0 may give one that is less
        probable than all of these, and so not among them.
        """
        assert features.texts is not None
        given, best = [], []
        for start, stop in _rows(features.row_of):
            context = _context_and_truths(features.texts[int(features.row_of[start])])[0]
            found = spans.of_row(outputs[start:stop])
            ranked = self._ranked(found, context)
            given.append(next(each for each in ranked if (each["start"] is None) == self._is_null(found)))
            best.append(ranked[:top_k])
        columns = pa.StructArray.from_arrays(pa.array(given, _SPAN).flatten(), fields=list(_SPAN))
        named = {each.name: columns.field(each.name) for each in _SPAN}
        return {**named, "n_best": pa.array(best, pa.list_(_SPAN))} if top_k else named

    def _ranked(self, found: RowSpans, context: str) -> list[dict[str, Any]]:
        """Return the answers of a row, the most probable first, with no answer where that may be or nothing else is."""
        with_null = bool(self.has_unanswered) or not found.spans
        places: list[tuple[int | None, int | None]] = [(each.start, each.end) for each in found.spans]
        places += [(None, None)] * with_null
        probabilities = found.probabilities(with_null=with_null)
        return [
            {
                "answer": context[start:end] if start is not None else "",
                "probability": float(str(np.float32(probabilities[number]))),
                "start": start,
                "end": end,
            }
            for number in np.argsort(-probabilities, kind="stable").tolist()
            for start, end in [places[number]]
        ]

    def _is_null(self, found: RowSpans) -> bool:
        """Return whether a row is given no answer."""
        return not found.spans or (bool(self.has_unanswered) and found.margin > self.null_score_diff_threshold)

    def answers(self, outputs: np.ndarray) -> Answers | None:
        """Return None: scores by name are of one answer for each row out of several that all rows have."""
        return None

    def fitted(self, outputs: np.ndarray, labels: np.ndarray) -> QuestionAnswering:
        """Return the task itself: what the best threshold would be is a score."""
        return self

    def scores(self, parts: Iterable[Scored]) -> Scores | None:
        """Return loss of windows, exact match and F1 of rows by SQuAD's rules, holding one part at a time."""
        losses: list[float] = []
        judged: list[Judged] = []
        for outputs, labels in parts:
            for windows, text in _scored_rows(outputs, labels):
                losses += windows[:, 0].tolist()
                judged.append(self._judge(windows, text))
        if not judged:
            return None
        # fsum rounds once, whatever the order.
        values = {"loss": math.fsum(losses) / len(losses)}
        return Scores(len(judged), values | answer_scores.values(judged, fits=bool(self.has_unanswered)))

    def _judge(self, windows: np.ndarray, text: str) -> Judged:
        context, truths = _context_and_truths(text)
        assert truths is not None  # of rows with answers
        found = spans.of_row(windows)
        best = context[found.spans[0].start : found.spans[0].end] if found.spans else ""
        of_best = answer_scores.exact_and_f1(best, truths)
        given = answer_scores.exact_and_f1("", truths) if self._is_null(found) else of_best
        return Judged(bool(truths), *given, margin=found.margin, span_f1=of_best[1])

    def to_json(self) -> dict[str, Any]:
        """Return the task for task.json."""
        return {
            "kind": self.kind,
            "text_columns": list(self.columns.text) if self.columns else None,
            "label_column": self.columns.label if self.columns else None,
            "form": self.columns.form if self.columns else None,
            "doc_stride": self.doc_stride,
            "has_unanswered": self.has_unanswered,
            "n_best_size": self.n_best_size,
            "max_answer_length": self.max_answer_length,
            "null_score_diff_threshold": self.null_score_diff_threshold,
        }


def from_json(columns: Columns | None, content: Mapping[str, Any]) -> QuestionAnswering:
    """Return the task that `QuestionAnswering.to_json` gave; KeyError, TypeError or ValueError for anything else."""
    stride, unanswered = content["doc_stride"], content["has_unanswered"]
    return QuestionAnswering(
        columns,
        None if stride is None else int(stride),
        None if unanswered is None else bool(unanswered),
        int(content["n_best_size"]),
        int(content["max_answer_length"]),
        float(content["null_score_diff_threshold"]),
    )


def _kept(context: str, label: Sequence[Mapping[str, Any]] | None) -> str:
    """Return a row's context and the texts of its true answers, null where they are not known, as JSON."""
    return json.dumps([context, None if label is None else [each["text"] for each in label]], ensure_ascii=False)


def _context_and_truths(text: str) -> tuple[str, list[str] | None]:
    """Return what `_kept` was given."""
    context, truths = json.loads(text)
    return context, truths


def _rows(row_of: np.ndarray) -> Iterator[tuple[int, int]]:
    """Give the first window of each row and the one behind its last."""
    starts = np.flatnonzero(np.diff(row_of, prepend=-1) != 0).tolist()
    return zip(starts, [*starts[1:], len(row_of)], strict=True)


def _scored_rows(outputs: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Give the numbers of the windows of each row that has all of them, and the row's text. labels: of `targets`."""
    start = 0
    while start < len(labels):
        stop = start + int(labels[start, 1])
        wanted = list(map(str, range(stop - start)))
        if labels[start:stop, 0].tolist() == wanted:
            yield outputs[start:stop], str(labels[start, 2])
            start = stop
        else:
            start += 1  # a window of the row has no finite number
