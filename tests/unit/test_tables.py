"""Features are made once, kept with checksums, and made again when anything they depend on has changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from preparing import GOOD, Alone, load, prepare, settings_of
from ringtune.train import config, data, publish, tables, tokens
from ringtune.train.contract import StopRequested, UsageError
from ringtune.train.stop import StopFlag
from tiny import make_tokenizer


def test_changed_content_under_the_same_name_is_read_again(tmp_path):
    first = load(tmp_path, GOOD)
    second = load(tmp_path, GOOD + "deft,up\n")
    assert (first.train.num_features, second.train.num_features) == (2, 3)
    assert first.digest != second.digest


def test_rows_are_read_once_and_their_files_only_hashed_after_that(tmp_path, monkeypatch):
    reads = []
    original = data.reader.LineFile.rows
    monkeypatch.setattr(data.reader.LineFile, "rows", lambda self: (reads.append(self.where), original(self))[1])
    first = load(tmp_path, GOOD, GOOD)
    assert sorted(Path(each).name for each in reads) == ["dev_train.csv", "train.csv"]
    again = load(tmp_path, GOOD, GOOD)
    assert len(reads) == 2 and again.task == first.task and again.report == first.report


def test_the_columns_are_reported_in_one_line(tmp_path):
    found = load(tmp_path, "id,text,label\n1,fine,up\n2,bad,down\n")
    assert found.report[0].endswith("train.csv: text: column text; label: column label, 2 classes; not read: id")


def table(tmp_path, several, **settings):
    """Return the features of texts, and the tokenizer."""
    lines = "".join(f"{text},{label}\n" for text, label in zip(several, ["up", "down"] * len(several), strict=False))
    (tmp_path / "t.csv").write_text("text,label\n" + lines)
    found = prepare(tmp_path, settings_of(tmp_path, train_file=str(tmp_path / "t.csv")), **settings)
    return found.train, make_tokenizer(tmp_path / "model")


@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_are_those_of_the_tokenizers_own_padding(tmp_path, side, monkeypatch):
    several = ["the film", "a very good story " * 6, "odd", "great scene was warm"]
    monkeypatch.setattr("transformers.BertTokenizerFast.padding_side", side)
    found, tokenizer = table(tmp_path, several)
    for chosen in ([0], [2, 0], [3, 1, 2, 0], [1, 1]):
        expected = tokenizer(
            [several[row].strip() for row in chosen], truncation=True, max_length=16, padding=True, return_tensors="pt"
        )
        batch = tokens.collate(found, chosen)
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert batch[name].tolist() == expected[name].tolist()
    assert tokens.collate(found, [0, 1])["labels"].tolist() == [1, 0]


def test_a_stop_while_tokenising_leaves_no_table(tmp_path):
    stop = StopFlag()
    stop.set()
    with pytest.raises(StopRequested):
        table(tmp_path, ["a film", "odd"], stop=stop)
    assert not list((tmp_path / "cache" / "tokens").iterdir())


def cached(tmp_path) -> list[Path]:
    """Return the files of the only folder of features in the cache."""
    (folder,) = (tmp_path / "cache" / "tokens").iterdir()
    return sorted(folder.iterdir())


def spoil_by_a_flipped_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


SPOIL = {"flipped": spoil_by_a_flipped_bit, "emptied": lambda path: path.write_bytes(b""), "gone": Path.unlink}


@pytest.mark.parametrize("spoil", SPOIL.values(), ids=SPOIL)
def test_damage_to_any_file_of_the_cached_features_is_noticed_and_they_are_made_again(tmp_path, spoil):
    found, _ = table(tmp_path, ["a film", "odd"])
    ids = tokens.collate(found, [0, 1])["input_ids"].numpy().copy()
    names = [each.name for each in cached(tmp_path)]
    assert {"train.input_ids", "train.offsets", "train.labels", "task.json", "manifest.json"} <= set(names)
    for number in range(len(names)):
        path = cached(tmp_path)[number]
        spoil(path)
        assert publish.verify_folder(path.parent, ("task.json",)) is not None
        again, _ = table(tmp_path, ["a film", "odd"])
        assert np.array_equal(tokens.collate(again, [0, 1])["input_ids"].numpy(), ids)
        assert publish.verify_folder(path.parent, ("task.json",)) is None and len(cached(tmp_path)) == len(names)


class OtherHost(Alone):
    """A rank that does not tokenise; the ranks of two hosts that do have reported what they made."""

    local_rank, rank = 1, 3

    def __init__(self, reported):
        self.reported = reported

    def gather_values(self, value, name):
        return [self.reported, value]


def test_a_rank_opens_the_tables_of_its_own_host_wherever_that_keeps_them(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text(GOOD)
    settings = config.TrainConfig("m", train_file=str(tmp_path / "t.csv"), max_seq_length=16)
    tokenizer = make_tokenizer(tmp_path / "model")
    reported = {}
    for host in ("a", "b"):
        monkeypatch.setenv("RINGTUNE_CACHE", str(tmp_path / host))
        reported[host] = tables._prepare(settings, tokenizer, StopFlag(), shown=False)
    found = tables.prepare(settings, tokenizer, OtherHost(reported["a"]), StopFlag())
    ids = found.train.token_columns["input_ids"]
    assert Path(ids.filename).is_relative_to(tmp_path / "b") and found.train.num_features == 2


def test_a_cache_that_is_no_folder_is_refused_in_one_line(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UsageError, match=r"--cache_dir .*cache: Not a directory"):
        load(tmp_path, GOOD)
