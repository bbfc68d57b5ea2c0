"""Names of columns that are known to hold texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Columns of the GLUE tasks (Wang et al. 2019), as the data set `nyu-mll/glue` names them.
GLUE_COLUMNS: dict[str, tuple[str, ...]] = {
    "cola": ("sentence",),
    "sst2": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
}
#: Names that data sets of pairs use, in the order in which a model reads them; GLUE's first.
PAIRS = (
    *sorted({each for each in GLUE_COLUMNS.values() if len(each) == 2}),
    ("text", "text_pair"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("query", "passage"),
    ("query", "document"),
    ("question", "context"),
)
#: Names that data sets of single texts use.
SINGLES = ("text", "sentence", "content", "review", "document", "comment", "tweet", "body")
_NOTES = ("comment",)  # which a file that holds a table may have beside it, too


def of_a_row(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names under which an object has the text, or the pair of texts, of a row; () for none. **Pure.**"""
    readings = [*PAIRS, *((name,) for name in SINGLES if name not in _NOTES)]
    return next((each for each in readings if all(isinstance(values.get(name), str) for name in each)), ())
