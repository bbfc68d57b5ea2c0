"""Scores of predicted entities: those that seqeval gives by default, counted part by part."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
from ringtune.train.scores import Scores, cross_entropies
from ringtune.train.task import tags


class EntityCounts:
    """Counts of words and entities, added part by part.

    An entity counts as found if its type and both ends are right. Broken sequences are read as in `tags.entities`,
    which is how CoNLL's scoring script and seqeval's default mode read them (Nakayama 2018, https://github.com/
    chakki-works/seqeval); tests compare them. seqeval holds all tags of all rows in memory, and its source package is
    not built by current setuptools.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """classes: the tags, in the order of the model's outputs."""
        self.classes = tuple(classes)
        self.num_rows = self.num_words = self.num_right = 0
        self.losses: list[np.ndarray] = []
        self.true, self.predicted, self.found = Counter[str](), Counter[str](), Counter[str]()

    def add(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Add whole rows. outputs: float [terms, W]. targets: tag, word and row, int [terms, 3]."""
        if not len(targets):
            return
        labels, numbers, rows = targets.T
        best = outputs.argmax(axis=1)
        self.losses.append(cross_entropies(outputs, labels))
        self.num_words += len(labels)
        self.num_right += int(np.count_nonzero(best == labels))
        starts = np.flatnonzero(np.concatenate([[True], np.diff(rows) != 0]))
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(labels)], strict=True):
            place = numbers[start:stop].tolist()
            self.num_rows += 1
            true = self._entities(labels[start:stop], place)
            predicted = self._entities(best[start:stop], place)
            self.true.update(kind for kind, _, _ in true)
            self.predicted.update(kind for kind, _, _ in predicted)
            self.found.update(kind for kind, _, _ in true & predicted)

    def _entities(self, numbers: np.ndarray, place: list[int]) -> set[tags.Entity]:
        """Return the entities of a row; a word between others that gives no piece is O."""
        row = [tags.OUTSIDE] * (place[-1] + 1)
        for word, number in zip(place, numbers.tolist(), strict=True):
            row[word] = self.classes[number]
        return set(tags.entities(row))

    def scores(self) -> Scores:
        """Return loss and accuracy of words, precision, recall and F1 of entities, and these by type."""
        types = tuple(dict.fromkeys(tag[2:] for tag in self.classes if tag != tags.OUTSIDE))
        by_type = {kind: _rates(self.found[kind], self.predicted[kind], self.true[kind]) for kind in types}
        total = _rates(self.found.total(), self.predicted.total(), self.true.total())
        values = {
            # Rounded once, however rows are parted.
            "loss": math.fsum(chain.from_iterable(self.losses)) / self.num_words,
            "accuracy": self.num_right / self.num_words,
            **{name: total[name] for name in ("precision", "recall", "f1")},
        }
        details = {"num_words": self.num_words, "entities": by_type}
        return Scores(self.num_rows, values, details, _table({**by_type, "all": total}))


def _rates(found: int, predicted: int, true: int) -> dict[str, float]:
    """Return precision, recall and F1, each 0 where it is not defined, and the counts. **Pure.**"""
    precision = found / predicted if predicted else 0.0
    recall = found / true if true else 0.0
    f1 = 2 * precision * recall / (precision + recall) if found else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "true": true, "predicted": predicted}


def _table(rates: dict[str, dict[str, float]]) -> str:
    """Return the rates of each type as lines. **Pure.**"""
    width = max(len(name) for name in rates)
    lines = [f"{'':{width}}  precision  recall      f1    true  predicted"]
    for name, each in rates.items():
        lines.append(
            f"{name:{width}}  {each['precision']:9.4f}  {each['recall']:6.4f}  {each['f1']:6.4f}  {each['true']:6}"
            f"  {each['predicted']:9}"
        )
    return "\n".join(lines)
