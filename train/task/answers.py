"""The column of answers, read over all training rows."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from ringtune.train.contract import UsageError


class AnswerColumn:
    """What the answers of the training rows say of the task."""

    def __init__(self, name: str, *, doc_stride: int | None) -> None:
        """doc_stride: ``--doc_stride``."""
        self.name, self.doc_stride = name, doc_stride
        self.num_rows = self.num_unanswered = 0

    def add(self, labels: pa.Array, places: Iterable[str]) -> None:
        """Add the answers of a batch; rows whose answers are not known are refused later, where rows are tokenised."""
        counts = labels.value_lengths().to_pylist()
        self.num_rows += len(counts)
        self.num_unanswered += sum(each == 0 for each in counts)

    def note(self) -> str:
        """Return how many questions have no answer, "" if all have one."""
        return f"{self.num_unanswered} of {self.num_rows} questions have no answer" if self.num_unanswered else ""

    def has_unanswered(self, where: str) -> bool:
        """Return whether questions may have no answer. Raises UsageError where none has one."""
        if self.num_unanswered == self.num_rows:
            raise UsageError(where, f"no question has an answer in column {self.name[:40]!r}", legal="answers to learn")
        return self.num_unanswered > 0
