"""The folder of parts survives a crash at any act on the disk, and knows what is whole and whose it is."""

from __future__ import annotations

import csv
import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from ringtune.train import disk, publish, reader
from ringtune.train.columns import Columns
from ringtune.train.contract import StopRequested, UsageError
from ringtune.train.device import processor_of
from ringtune.train.files import Files
from ringtune.train.predict import inputs, writer
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.identity import Identity
from ringtune.train.predict.parts import PartsFolder, Spool, write_part
from ringtune.train.task.regression import Regression

TASK = Regression(None)


class Crash(BaseException):
    """The process is gone."""


def make_output(folder, name="out.jsonl", should_stop=lambda: False, **settings):
    """Spool 1,200 rows, write a part for each chunk that has none, join, remove: all that a prediction does on disk."""
    config = PredictConfig("m", str(folder / "in.txt"), str(folder / name), **settings)
    parts = PartsFolder(folder / name)
    parts.check_output(config)
    parts.lock.acquire()
    try:
        source = inputs.open_source(config, TASK)
        columns = inputs.choose_columns(source, config, TASK)
        identity = Identity(
            {"model_name_or_path": "m", "input": "", "output": "", "top_k": config.top_k},
            {"input": source.digest},
            "CPU",
        )
        parts.remove_left_behind()
        goes_on = parts.check_identity(identity, print, overwrite=config.overwrite_output)
        if not goes_on:
            parts.clear()
        spool = Spool(parts.spool(source, columns, config, lambda: False, print))
        if not goes_on:
            parts.sign(identity)
        for chunk in parts.missing_chunks(spool.num_batches, print):
            rows = spool.read(chunk)
            shown = pa.RecordBatch.from_pydict({"length": [len(each) for each in rows.column("text/0").to_pylist()]})
            write_part(parts.folder, chunk, shown)
        parts.join(parts.part_paths(spool.num_batches), overwrite=config.overwrite_output, should_stop=should_stop)
        parts.remove()
    finally:
        parts.lock.release()


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "in.txt").write_text("".join("x" * (number % 7) + "\n" for number in range(1200)))
    return tmp_path


def test_a_crash_at_every_single_act_on_the_disk_changes_nothing(rows, monkeypatch):
    make_output(rows, "whole.jsonl")
    whole = (rows / "whole.jsonl").read_bytes()
    assert whole.count(b"\n") == 1200
    acts, fatal = 0, None
    originals = {name: getattr(disk, name) for name in ("write_bytes", "fsync", "rename")}

    def counted(name):
        def act(*arguments):
            nonlocal acts
            acts += 1
            if acts == fatal:
                if name == "write_bytes":
                    arguments[0].write_bytes(bytes(arguments[1])[:10])
                raise Crash
            return originals[name](*arguments)

        return act

    for name in originals:
        monkeypatch.setattr(disk, name, counted(name))
    crashed = True
    while crashed:
        acts, fatal = 0, (fatal or 0) + 1
        output = rows / f"{fatal}.jsonl"
        with monkeypatch.context() as gone:
            gone.setattr("pathlib.Path.unlink", lambda *arguments, **options: None)  # who is gone does not tidy up
            try:
                make_output(rows, output.name)
                crashed = False
            except Crash:
                assert not output.exists() or output.read_bytes() == whole
        if crashed:
            acts, fatal_before, fatal = 0, fatal, None
            make_output(rows, output.name)
            fatal = fatal_before
        assert output.read_bytes() == whole
        assert not output.with_name(output.name + ".parts").exists()
    assert fatal > 15  # acts of one undisturbed prediction


def test_an_output_that_is_there_is_refused_unless_it_may_be_replaced(rows):
    (rows / "out.jsonl").write_text("mine")
    with pytest.raises(UsageError, match="it exists; a new file; --overwrite_output replaces it"):
        make_output(rows)
    assert not (rows / "out.jsonl.parts").exists()
    make_output(rows, overwrite_output=True)
    assert (rows / "out.jsonl").read_text() != "mine"


def test_an_output_that_appeared_meanwhile_is_left_alone(rows, monkeypatch):
    original = PartsFolder.join

    def join(self, *arguments, **options):
        self.output.write_text("somebody else's")
        original(self, *arguments, **options)

    monkeypatch.setattr(PartsFolder, "join", join)
    with pytest.raises(UsageError, match="it exists, and with another content"):
        make_output(rows)
    assert (rows / "out.jsonl").read_text() == "somebody else's"


def test_a_stop_while_parts_are_joined_leaves_no_output_and_keeps_them(rows):
    answers = iter((False, True))  # the second part finds a stop requested
    with pytest.raises(StopRequested):
        make_output(rows, should_stop=lambda: next(answers))
    assert not (rows / "out.jsonl").exists()
    assert list((rows / "out.jsonl.parts").glob("part-*")) and not list((rows / "out.jsonl.parts").glob(".*.tmp"))


def test_parts_of_which_some_lack_a_column_are_not_joined(tmp_path):
    parts = PartsFolder(tmp_path / "out.csv")
    parts.folder.mkdir()
    for chunk, names in enumerate((["label"], ["score/kept/score/label", "label"])):
        write_part(parts.folder, chunk, pa.RecordBatch.from_pydict({name: ["up"] for name in names}))
    with pytest.raises(
        UsageError, match=r"part-00000001.*: not every part has the columns score/label: .*; remove .*out.csv.parts"
    ):
        parts.join(parts.part_paths(2), overwrite=False, should_stop=lambda: False)
    assert not parts.output.exists() and len(list(parts.folder.iterdir())) == 2


def test_parts_of_another_input_or_other_settings_are_refused_by_name(rows, monkeypatch):
    monkeypatch.setattr(PartsFolder, "remove", lambda self: (_ for _ in ()).throw(Crash()))
    with pytest.raises(Crash):
        make_output(rows)
    (rows / "out.jsonl").unlink()
    with pytest.raises(UsageError, match="--top_k: 2 is not what the run to be resumed has, None"):
        make_output(rows, top_k=2)
    (rows / "in.txt").write_text("other\n")
    with pytest.raises(UsageError, match="the input has changed since this was begun"):
        make_output(rows)
    monkeypatch.undo()
    make_output(rows, overwrite_output=True)
    assert (rows / "out.jsonl").read_text() == '{"length": 5}\n'


@pytest.mark.parametrize(("begun", "line"), [("GPU", True), ("CPU", False), (None, False)])
def test_parts_of_another_kind_of_processor_are_gone_on_with_and_named(tmp_path, begun, line):
    """None: begun by an earlier version, which did not write it down."""
    parts, lines = PartsFolder(tmp_path / "out.csv"), []
    parts.folder.mkdir()
    Identity({"model_name_or_path": "m"}, {"input": "1"}, begun or "").write(parts.folder / "job.json")
    if begun is None:
        content = {"settings": {"model_name_or_path": "m"}, "digests": {"input": "1"}, "output": ""}
        checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        (parts.folder / "job.json").write_text(json.dumps({**content, "checksum": checksum}))
    settings = {"model_name_or_path": "m", "input": "", "output": ""}
    now = Identity(settings, {"input": "1"}, processor_of(torch.device("cpu")))
    assert parts.check_identity(now, lines.append, overwrite=False)
    start = f"the parts in {parts.folder}: they were begun on GPU, and CPU does the rest: its numbers may differ"
    assert [each.startswith(start) for each in lines] == [True] * line


def test_a_second_live_command_for_the_same_output_is_refused(rows):
    first = PartsFolder(rows / "out.jsonl")
    first.lock.acquire()
    with pytest.raises(UsageError, match=r"out.jsonl.parts: a run is alive in it"):
        make_output(rows)
    first.lock.release()


def test_flipped_bits_are_noticed(tmp_path):
    path = publish.write_file(tmp_path, "part-00000001", b"some content")
    assert publish.verify_file(path) is None and publish.list_files(tmp_path) == {"part-00000001": path}
    path.write_bytes(b"some kontent")
    assert "its sha256 differs" in str(publish.verify_file(path))


def example(metadata=writer.PREDICTED):
    columns = {
        "id": pa.array([7, None]),
        "more": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": [1]}', '"text"'])),
        "label": pa.array(["up", None]),
        "share": pa.array(np.array([0.1, np.nan], dtype=np.float32), mask=np.array([False, True])),
        "error": pa.array([None, "bad, row"]),
    }
    predicted = ("label", "share", "error")
    fields = [
        pa.field(name, each.type, metadata=metadata if name in predicted else None) for name, each in columns.items()
    ]
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields))


CELLS = ["a\rb", "\r", "\r\n", "\n", "", "a, b", 'say "b"', "\t", " a ", "plain"]


@pytest.mark.parametrize("name", ["answer", "an\rswer"])
def test_a_row_of_a_csv_file_stays_one_whatever_breaks_lines_in_it(tmp_path, name):
    batch = pa.RecordBatch.from_pydict({name: CELLS, "lists": [[each] for each in CELLS], "error": [None] * len(CELLS)})
    path = tmp_path / "out.csv"
    with writer.open_writer(path, ".csv", batch.schema) as file:
        file.write(batch)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [[name, "lists", "error"], *([each, json.dumps([each]), ""] for each in CELLS)]
        assert list(csv.reader(stream)) == rows
    parts = reader.open_files(Files("out", "csv", (path,))).read(Columns((name,), None, kept=(name,)))
    assert [text for part in parts for text in part.column(f"kept/{name}").to_pylist()] == CELLS


def test_a_file_without_carriage_returns_has_the_bytes_that_csv_writes(tmp_path):
    names, rows = ["a", "b, c"], [[each, other] for each in CELLS for other in CELLS if "\r" not in each + other]
    batch = pa.RecordBatch.from_pydict(
        {name: list(each) for name, each in zip(names, zip(*rows, strict=True), strict=True)}
    )
    with writer.open_writer(tmp_path / "out.csv", ".csv", batch.schema) as file:
        file.write(batch)
    with io.StringIO(newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([names, *rows])
        assert (tmp_path / "out.csv").read_bytes() == stream.getvalue().encode()


def test_every_format_writes_the_same_rows(tmp_path):
    import pyarrow.parquet as pq

    batch = example()
    for ending in (".jsonl", ".csv", ".parquet"):
        with writer.open_writer(tmp_path / f"out{ending}", ending, batch.schema) as file:
            file.write(batch)
            file.write(batch)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[:2] == [
        {"id": 7, "more": {"a": [1]}, "label": "up", "share": 0.1},
        {"id": None, "more": "text", "error": "bad, row"},
    ]
    assert lines[2:] == lines[:2]
    with (tmp_path / "out.csv").open(newline="") as stream:
        assert list(csv.reader(stream))[:3] == [
            ["id", "more", "label", "share", "error"],
            ["7", '{"a": [1]}', "up", "0.1", ""],
            ["", "text", "", "", "bad, row"],
        ]
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("share").to_pylist()[0] == pytest.approx(0.1) and table.num_rows == 4
    assert table.column("label").to_pylist()[:2] == ["up", None] and table.schema.field("id").type == pa.int64()


def test_numbers_that_json_lacks_are_null_in_it(tmp_path):
    texts = pa.array(['{"p": NaN, "q": [1e400, 2.5]}', "-Infinity"], pa.string())
    batch = pa.RecordBatch.from_arrays(
        [pa.array([np.nan, 1.5]), pa.ExtensionArray.from_storage(pa.json_(), texts)], names=["share", "more"]
    )
    for ending in (".jsonl", ".csv"):
        with writer.open_writer(tmp_path / f"out{ending}", ending, batch.schema) as file:
            file.write(batch)
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert lines == ['{"share": null, "more": {"p": null, "q": [null, 2.5]}}', '{"share": 1.5, "more": null}']
    with (tmp_path / "out.csv").open(newline="") as stream:
        assert list(csv.reader(stream))[1] == ["nan", '{"p": null, "q": [null, 2.5]}']
