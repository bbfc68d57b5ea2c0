"""Long rows in windows: no token is lost, and what is pooled is what the model gives for each window alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train import config, task
from ringtune.train.attention import packer_of, take_packed_rows
from ringtune.train.batches import on_device
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.first_token import leave_out_other_tokens
from ringtune.train.task.classification import Classification
from ringtune.train.task.multilabel import MultiLabel
from ringtune.train.task.regression import Regression
from ringtune.train.task.token_classification import TokenClassification
from ringtune.train.task.windows import BEGINS, Windows, num_windows
from tiny import WORDS, make_tokenizer
from transformers import BertConfig, BertForSequenceClassification

CPU = torch.device("cpu")
ROOM = 12  # tokens of a window, two of them special
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    config.initializer_range, config.num_labels = 0.4, 3
    return BertForSequenceClassification(config).eval()


def windows_of(features, row: int) -> list[np.ndarray]:
    """Return the tokens of each window of a row."""
    mine = slice(features.offsets[row], features.offsets[row + 1])
    begins = np.flatnonzero(features.token_columns[BEGINS][mine])
    return np.split(features.token_columns["input_ids"][mine], begins[1:])


@given(texts=TEXTS, stride=st.integers(0, (ROOM - 2) // 2))
def test_windows_have_every_token_once_beside_what_they_share(tokenizer, texts, stride):
    features = Windows(stride, "mean").encode(tokenizer, [texts], ROOM)
    assert features.num_features == len(texts) and (features.num_terms == 1).all()
    for row, text in enumerate(texts):
        found = windows_of(features, row)
        assert num_windows(features)[row] == len(found)
        inner = [each[1:-1] for each in found]
        for each, one in zip(found, inner, strict=True):
            assert len(each) <= ROOM and each[0] == tokenizer.cls_token_id and each[-1] == tokenizer.sep_token_id
            assert len(found) == 1 or len(one) > stride
        joined = np.concatenate([inner[0], *(each[stride:] for each in inner[1:])])
        assert joined.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_second_text_of_a_pair_is_read_behind_the_whole_first_one(tokenizer):
    pairs = [["good film", "a " * 30, "odd"], [" ".join(WORDS), " ".join(WORDS), ""]]
    features = Windows(2, "mean").encode(tokenizer, pairs, 16)
    first, cut, short = (windows_of(features, row) for row in range(3))
    question = tokenizer("good film", add_special_tokens=False)["input_ids"]
    assert len(first) > 1 and all(each[1:3].tolist() == question for each in first)
    assert all((each[1:7] == each[1]).all() for each in cut)  # 13 tokens of text in a window, 6 of the first
    found = np.concatenate([cut[0][8:-1], *(each[10:-1] for each in cut[1:])]).tolist()
    assert found == tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"]
    assert len(short) == 1
    types = features.token_columns["token_type_ids"][: len(first[0])]
    assert types.tolist() == [0] * 4 + [1] * (len(first[0]) - 4)


@pytest.mark.parametrize("more", [{}, {"label": ["y", "x", "y"]}], ids=["without labels", "with labels"])
def test_a_first_text_is_cut_only_where_the_second_needs_its_room_and_that_is_counted(tokenizer, more):
    kind = Classification(Columns(("a", "b"), None), ("x", "y"), windows=Windows(2, "mean"))
    long, short = " ".join(WORDS[:11]), "good film"
    rows = pa.RecordBatch.from_pydict({"text/0": [long, long, short], "text/1": [short, long, long], **more})
    features = kind.encode(rows, tokenizer, 16)
    assert [len(windows_of(features, row)) for row in range(3)] == [1, 2, 1]
    assert windows_of(features, 0)[0][1:12].tolist() == tokenizer(long, add_special_tokens=False)["input_ids"]
    oddities = kind.count_oddities(rows, features)
    assert [count for what, count in oddities.items() if "they are cut" in what] == [1]
    assert "first_text_is_cut" not in kind.collate(features, [0, 1], 0)
    assert ("labels" in kind.collate(features, [0, 1], 0)) == ("label" in more)


def test_threads_that_share_a_tokenizer_make_the_windows_of_pairs_one_at_a_time(tokenizer):
    kind = Windows(2, "mean")
    pairs = [[" ".join(WORDS[: n % 22 + 1]) for n in range(40)], [" ".join(WORDS * (n % 4 + 1)) for n in range(40)]]
    expected = kind.encode(tokenizer, pairs, 16).token_columns["input_ids"].tolist()
    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda _: kind.encode(tokenizer, pairs, 16), range(24)))
    assert all(each.token_columns["input_ids"].tolist() == expected for each in several)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("packs", [False, True], ids=["padded", "packed"])
def test_logits_of_rows_are_pooled_from_those_of_their_windows_alone(tokenizer, model, pooling, packs):
    kind = Classification(None, ("a", "b", "c"), windows=Windows(3, pooling))
    texts = ["good " * 5, " ".join(WORDS), "", " ".join(WORDS * 3), "a film"]
    features = kind.windows.encode(tokenizer, [texts], ROOM)
    if packs:
        take_packed_rows(leave_out_other_tokens(model))
    with torch.no_grad():
        alone = [
            torch.cat([model(input_ids=torch.from_numpy(each[None].astype(np.int64))).logits for each in windows])
            for windows in (windows_of(features, row) for row in range(len(texts)))
        ]
        batch = on_device(kind.collate(features, [3, 0, 4, 1, 2], 0), packer_of(model, CPU, None), CPU)
        found = kind.logits(model(**kind.inputs(batch)), batch)
    pooled = [each.mean(dim=0) if pooling == "mean" else each.amax(dim=0) for each in alone]
    assert [len(each) for each in alone] == [1, 3, 1, 9, 1]
    torch.testing.assert_close(found, torch.stack([pooled[row] for row in (3, 0, 4, 1, 2)]), rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_rows_loss_reaches_every_window(tokenizer, model):
    kind = Regression(None, windows=Windows(0, "mean"))
    features = kind.windows.encode(tokenizer, [["good " * 25, "bad"]], ROOM)
    batch = kind.collate(features, [0, 1], 0) | {"labels": torch.tensor([1.0, 0.0])}
    logits = torch.randn(len(batch["input_ids"]), 1, requires_grad=True)
    kind.losses(type("Output", (), {"logits": logits}), batch, 0.0)[0].backward()
    longest = batch["windows_of_rows"][0].tolist()
    assert sorted(longest) == [0, 1, 2] and (logits.grad[longest] != 0).all()
    assert logits.grad[3].item() == 0
    torch.testing.assert_close(logits.grad[longest], logits.grad[longest[:1]].expand(3, 1))


def test_a_row_that_fits_is_read_as_without_windows(tokenizer):
    from ringtune.train import tokens

    texts = ["good film", " ".join(WORDS[:10])]
    plain, windowed = tokens.encode(tokenizer, [texts], ROOM), Windows(4, "mean").encode(tokenizer, [texts], ROOM)
    for name, each in plain.token_columns.items():
        assert (windowed.token_columns[name] == each).all()
    assert (plain.offsets == windowed.offsets).all() and (plain.lengths == windowed.lengths).all()


@pytest.mark.parametrize(
    "kind",
    [
        Classification(Columns(("text",), "label"), ("a", "b"), windows=Windows(8, "max")),
        Regression(Columns(("text",), "label"), windows=Windows(0, "mean")),
        MultiLabel(Columns(("text",), "label"), ("a", "b"), windows=Windows(8, "mean")),
        Classification(Columns(("text",), "label"), ("a", "b")),
    ],
)
def test_task_json_keeps_the_windows(kind):
    content = kind.to_json()
    assert task.from_json(content).windows == kind.windows
    assert ("windows" in content) == (kind.windows is not None)


def test_what_windows_cannot_be_made_of_is_refused(tokenizer):
    for texts, most in ([["a"]], 5), ([["a"], ["b"]], 2):
        Windows(most, "mean").encode(tokenizer, texts, ROOM)
        with pytest.raises(UsageError, match=f"hardly move on.*at most {most}"):
            Windows(most + 1, "mean").encode(tokenizer, texts, ROOM)
    with pytest.raises(UsageError, match="--window_stride: it is of texts with labels"):
        task.in_windows(TokenClassification(None, ("O", "B-A", "I-A"), "iob2"), 4, "mean")
    slow = type("Slow", (), {"is_fast": False})
    with pytest.raises(UsageError, match="does not say which characters.*for --window_stride"):
        Windows(2, "mean").encode(slow, [["a"]], ROOM)


def test_settings_that_say_nothing_of_windows_are_refused():
    words = ["--model_name_or_path", "m", "--train_file", "t.csv"]
    with pytest.raises(UsageError, match="--window_stride: -1 is negative"):
        config.parse([*words, "--window_stride", "-1"])
    with pytest.raises(UsageError, match="--window_pooling: rows are not read in windows"):
        config.parse([*words, "--window_pooling", "max"])
