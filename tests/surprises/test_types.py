"""Columns with types of their own: what differs between files is read as one, or refused with the names of both."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import predicted, texts_predicted, train
from ringtune.train.contract import UsageError
from ringtune.train.predict import inputs


@pytest.mark.parametrize("labels", [([1, 0], ["1", "0"]), ([1, 0], [1.0, 0.0]), ([1, 0], [None, 1])])
def test_labels_of_numbers_and_texts_are_one_column(tmp_path, labels):
    for name, each in zip("ab", labels, strict=True):
        pd.DataFrame({"text": ["fine", "bad"], "label": each}).to_parquet(tmp_path / f"{name}.parquet")
    if None in labels[1]:
        with pytest.raises(UsageError, match="b.parquet: row 1: there is no label"):
            train(tmp_path, tmp_path)
    else:
        assert train(tmp_path, tmp_path).task.classes == ("0", "1")


def test_columns_of_other_types_in_other_files_are_refused_by_name(tmp_path):
    def write_types(label=True, text="fine", extra=1):
        pd.DataFrame({"text": ["fine"], "label": [1], "extra": [1]}).to_parquet(tmp_path / "a.parquet")
        pd.DataFrame({"text": [text], "label": [label], "extra": [extra]}).to_parquet(tmp_path / "b.parquet")

    write_types()
    with pytest.raises(UsageError, match=r"column 'label': it holds int64 in .*a.parquet and bool in .*b.parquet"):
        train(tmp_path, tmp_path, text_column_names="text")
    write_types(label=0, text=7)
    with pytest.raises(UsageError, match=r"b.parquet: column 'text' holds int64, not text"):
        train(tmp_path, tmp_path, text_column_names="text")
    write_types(label=0, extra="x")
    with pytest.raises(UsageError, match=r"column 'extra': it holds int64 in .*a.parquet and \S+ in .*b.parquet"):
        texts_predicted(tmp_path, keep_columns="extra")
    assert texts_predicted(tmp_path) == ["fine", "fine"]


def test_a_kept_column_that_is_empty_in_one_file_has_the_type_of_the_others(tmp_path):
    for name, extra in (("a", pa.nulls(1)), ("b", pa.array([7]))):
        kind = pa.array([name]).dictionary_encode()
        pq.write_table(pa.table({"text": ["fine"], "extra": extra, "kind": kind}), tmp_path / f"{name}.parquet")
    batches, _ = predicted(tmp_path, keep_columns="extra,kind")
    chunk = next(inputs.in_chunks(batches))
    assert chunk["kept/extra"].to_pylist() == [None, 7] and chunk["kept/kind"].to_pylist() == ["a", "b"]
