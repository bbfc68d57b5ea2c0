"""Which tokens are masked and what stands there: a function of seed and feature, whose number is known in advance."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
import stories
import torch
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train import table
from ringtune.train.batches import Batches
from ringtune.train.contract import UsageError
from ringtune.train.joined_texts import JoinedTexts
from ringtune.train.masked_tokens import EVEN, PACKED_PLACES, PADDED_PLACES
from ringtune.train.publish import new_folder
from ringtune.train.task.masked_lm import MaskedLM
from ringtune.train.task.masking import BEGINS, GOES_ON, NEVER, Masking, Vocabulary, choose
from ringtune.train.task.sequence import LABELS
from ringtune.train.task.text_pieces import UNITS, units_of
from ringtune.train.tokens import IDS, TYPES, Features
from tiny import make_tokenizer

TEXTS = [*stories.texts(40, 1), "", "  ", "\U0001f600 film"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def task_of(tokenizer, **settings) -> MaskedLM:
    return MaskedLM(None, Masking(vocabulary=Vocabulary.of(tokenizer), **settings))


def encode(task: MaskedLM, tokenizer, texts, size: int = 16) -> Features:
    return task.encode(pa.RecordBatch.from_pydict({"text/0": texts}), tokenizer, size)


def joined(task: MaskedLM, tokenizer, texts, folder, *, batch: int = 7, size: int = 16) -> Features:
    """Return the features of a split whose rows come in batches."""
    texts_of_split = JoinedTexts(task, size)
    with new_folder(folder) as new:
        writer = table.TableWriter(new, "train")
        for start in range(0, len(texts), batch):
            several = texts[start : start + batch]
            found = texts_of_split.add(encode(task, tokenizer, several, size), len(several))
            writer.append(found, len(several))
        rest = texts_of_split.finish("rows")
        if rest is not None:
            writer.append(rest, 0)
        writer.close()
    return table.open_table(folder, "train")


def joined_in_memory(task: MaskedLM, tokenizer) -> Features:
    return JoinedTexts(task, 16).add(encode(task, tokenizer, TEXTS), len(TEXTS))


# Which tokens


@given(
    st.lists(st.sampled_from([NEVER, BEGINS, GOES_ON]), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0)
)
def test_as_many_tokens_are_chosen_as_were_promised_and_all_but_one_word_whole(codes, probability, seed):
    units = np.array(codes, dtype=np.int8)
    count = int(Masking(probability).count(np.array(np.count_nonzero(units))))
    places = choose(units, count, np.random.Generator(np.random.Philox(seed)))
    assert len(places) == count and (np.diff(places) > 0).all() and (units[places] != NEVER).all()
    assert (count == 0) == (not units.any()) and count <= max(1, round(probability * np.count_nonzero(units)))
    words: list[list[int]] = []
    for place, unit in enumerate(codes):
        if unit != NEVER and (unit == BEGINS or place == 0 or codes[place - 1] == NEVER):
            words.append([place])
        elif unit == GOES_ON:
            words[-1].append(place)
    parts = [word for word in words if set(word) & set(places.tolist()) and not set(word) <= set(places.tolist())]
    assert len(parts) <= 1
    assert not parts or set(parts[0][:1]) <= set(places.tolist())  # its first tokens


def test_each_token_is_as_likely_as_any_other():
    units = np.array([BEGINS] * 10 + [NEVER] * 3)
    counts = np.zeros(13)
    for seed in range(2000):
        counts[choose(units, 2, np.random.Generator(np.random.Philox(seed)))] += 1
    assert counts[10:].sum() == 0 and abs(counts[:10] - 400).max() < 80


def test_eight_of_ten_become_the_mask_one_any_token_and_one_stays(tokenizer):
    masking = task_of(tokenizer, probability=0.5).masking
    special = set(masking.vocabulary.special)
    own = tokenizer.convert_tokens_to_ids("film")
    ids, units = np.full(100, own), np.full(100, BEGINS)
    found = np.concatenate([masking.draw(ids, units, 3, feature)[1] for feature in range(200)])
    others = found[(found != masking.vocabulary.mask) & (found != own)]
    assert abs((found == masking.vocabulary.mask).mean() - 0.8) < 0.02
    assert abs((found == own).mean() - 0.1) < 0.02
    assert not set(others.tolist()) & special and set(others.tolist()) | special | {own} == set(range(len(tokenizer)))


def test_masks_depend_on_seed_and_feature_and_not_on_the_batch(tokenizer):
    task = task_of(tokenizer, line_by_line=True)
    features = encode(task, tokenizer, TEXTS)
    for number in (0, 3, 11):
        alone = task.collate(features, [number], seed=5)
        batch = task.collate(features, [7, number, 2], seed=5)
        start = int(features.num_terms[7])
        terms = slice(start, start + int(features.num_terms[number]))
        assert batch[LABELS][terms].tolist() == alone[LABELS].tolist()
        length = int(features.lengths[number])
        assert batch[IDS][1, :length].tolist() == alone[IDS][0].tolist()
    same, other = (task.collate(features, np.arange(20), seed=each) for each in (5, 6))
    assert (task.collate(features, np.arange(20), seed=5)[IDS] == same[IDS]).all()
    assert (other[IDS] != same[IDS]).any()


def test_every_step_has_masks_of_its_own_whatever_the_shard(tokenizer):
    task = task_of(tokenizer)
    features = joined_in_memory(task, tokenizer)
    batches = [Batches(task, features, None, torch.device("cpu"), seed) for seed in (1, 1, 2)]
    first = batches[0].get(1, 0, np.arange(4))
    part = batches[1].get(1, 3, np.arange(2, 4))
    assert (part[IDS] == first[IDS][2:]).all() and len(part[LABELS]) == features.num_terms[2:4].sum()
    for other in (batches[0].get(2, 0, np.arange(4)), batches[2].get(1, 0, np.arange(4))):
        assert (other[IDS] != first[IDS]).any(dim=1).all() and len(other[LABELS]) == len(first[LABELS])


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_says_what_stood_where_as_it_is_and_packed(tokenizer, side, monkeypatch):
    monkeypatch.setattr(tokenizer, "padding_side", side)
    task = task_of(tokenizer, line_by_line=True, whole_words=True, probability=0.3)
    features = encode(task, tokenizer, TEXTS)
    chosen = [0, 4, 9, 1]
    batch = task.collate(features, chosen, seed=1)
    plain = np.concatenate([features.token_columns[IDS][features.offsets[n] : features.offsets[n + 1]] for n in chosen])
    num_terms = int(features.num_terms[chosen].sum())
    packed_ids = batch[IDS][batch["attention_mask"].bool()].numpy()
    packed, padded = batch[PACKED_PLACES].numpy(), batch[PADDED_PLACES].numpy()
    assert len(packed) % EVEN == 0 and len(packed) - EVEN < num_terms == len(batch[LABELS])
    assert (plain[packed[:num_terms]] == batch[LABELS].numpy()).all()
    assert (packed_ids[packed] == batch[IDS].flatten().numpy()[padded]).all()
    changed = np.flatnonzero(packed_ids != plain)
    assert set(changed) <= set(packed) and len(changed) > num_terms / 2
    assert UNITS not in batch and LABELS not in task.inputs(batch)


# From texts to features


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_texts_are_joined_over_the_whole_split_and_nothing_is_lost(tokenizer, tmp_path, batch):
    task = task_of(tokenizer)
    features = joined(task, tokenizer, TEXTS, tmp_path / "table", batch=batch)
    plain = [tokenizer(text)["input_ids"] if text.strip() else [] for text in TEXTS]  # as run_mlm.py joins them
    assert features.token_columns[IDS].tolist() == list(itertools.chain(*plain))
    assert (features.lengths[:-1] == 16).all() and 0 < features.lengths[-1] < 16
    rows = np.repeat(np.arange(len(plain)), list(map(len, plain)))
    assert features.row_of.tolist() == rows[features.offsets[:-1]].tolist()
    assert set(features.token_columns[TYPES].tolist()) == {0}
    for number in range(features.num_features):
        ids, units = units_of(features, number)
        assert not set(ids[units != NEVER].tolist()) & set(tokenizer.all_special_ids)
        assert (units[~np.isin(ids, tokenizer.all_special_ids)] != NEVER).all()
        count = np.count_nonzero(units)
        assert features.num_terms[number] == (max(1, round(0.15 * count)) if count else 0)
        assert len(task.masking.draw(ids, units, 1, number)[0]) == features.num_terms[number]


def test_a_text_by_itself_is_cut_into_rows_that_hold_all_of_it(tokenizer):
    task = task_of(tokenizer, line_by_line=True)
    features = encode(task, tokenizer, TEXTS)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for row, text in enumerate(TEXTS):
        mine = [units_of(features, number)[0].tolist() for number in np.flatnonzero(features.row_of == row)]
        assert all(each[0] == tokenizer.cls_token_id and each[-1] == tokenizer.sep_token_id for each in mine)
        found = [token for each in mine for token in each if token not in special]
        assert found == tokenizer(text, add_special_tokens=False)["input_ids"]
    oddities = task.count_oddities(pa.RecordBatch.from_pydict({"text/0": TEXTS}), features)
    assert list(oddities.values()) == [2, 6]


def test_pieces_of_a_word_are_masked_together(tokenizer):
    task = task_of(tokenizer, line_by_line=True, whole_words=True)
    features = encode(task, tokenizer, ["film deftest, xyz"])
    ids, units = units_of(features, 0)
    names = tokenizer.convert_ids_to_tokens(ids.tolist())
    known = {"[CLS]": NEVER, "[SEP]": NEVER, "[UNK]": NEVER}
    assert [known.get(name, GOES_ON if name.startswith("##") else BEGINS) for name in names] == units.tolist()
    assert names.count("##t") and (units == GOES_ON).sum() >= 5
    words = task_of(tokenizer, line_by_line=True)
    assert (units_of(encode(words, tokenizer, ["film deftest"]), 0)[1][1:-1] == BEGINS).all()


def test_texts_without_a_token_that_could_be_masked_are_refused(tokenizer):
    task = task_of(tokenizer)
    texts = JoinedTexts(task, 16)
    texts.add(encode(task, tokenizer, ["\U0001f600", ""]), 2)
    with pytest.raises(UsageError, match="no token in it that could be masked"):
        texts.finish("rows.txt")


def test_a_tokenizer_without_a_mask_token_is_refused(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    assert Vocabulary.of(tokenizer).mask == tokenizer.convert_tokens_to_ids("[MASK]")
    tokenizer.mask_token = None
    with pytest.raises(UsageError, match="no mask token"):
        Vocabulary.of(tokenizer)


def test_the_task_is_what_its_file_says(tokenizer, tmp_path):
    from ringtune.train import task as tasks
    from ringtune.train.columns import Columns
    from ringtune.train.contract import TASK_FILE

    task = MaskedLM(Columns(("body",), None), Masking(0.2, True, True, Vocabulary.of(tokenizer)))
    (tmp_path / TASK_FILE).write_bytes(tasks.to_bytes(task, 64))
    assert tasks.read(tmp_path) == (task, 64)
