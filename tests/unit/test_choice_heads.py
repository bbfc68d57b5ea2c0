"""Choices of a row are computed as transformers computes them, packed or padded, however many a row has."""

from __future__ import annotations

import json
import shutil

import choosing
import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from ringtune.train import model as models
from ringtune.train import objective
from ringtune.train.attention import PACKED_TYPES, can_pack, packer_of, take_packed_rows
from ringtune.train.batches import on_device
from ringtune.train.columns import Columns
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.evaluate import outputs_of
from ringtune.train.first_token import leave_out_other_tokens
from ringtune.train.predict import predict
from ringtune.train.step import Precision
from ringtune.train.task import choices, from_json
from ringtune.train.task.multiple_choice import MISSING, MultipleChoice
from ringtune.train.tokens import term_places
from test_first_token import DEBERTA, SIZES
from tiny import make_tokenizer
from transformers import AutoConfig, AutoModelForMultipleChoice

CPU = torch.device("cpu")
TASK = MultipleChoice(None, 4, "from_0")


def chooser(family: str = "bert", **more: object) -> torch.nn.Module:
    """Return a model whose numbers depend visibly on every token and every position."""
    torch.manual_seed(2)
    own = DEBERTA if family == "deberta-v2" else {}
    settings = {**SIZES, "initializer_range": 0.4, "vocab_size": 80, **own, **more}
    model = AutoModelForMultipleChoice.from_config(AutoConfig.for_model(family, **settings)).eval()
    if family == "modernbert":
        for each in model.parameters():
            torch.nn.init.normal_(each, std=0.2)
    return model.double()


def rows_of(num_rows: int = 9, *, short: bool = False) -> pa.RecordBatch:
    """Return rows as the reader gives them. short: some lack their last choice, some their second one."""
    drawn = choosing.draw_rows(num_rows, 3)
    several = [list(each[2]) for each in drawn]
    for number, row in enumerate(several) if short else ():
        row[1] = None if number % 2 else row[1]
        if number % 3 == 0:
            row.pop()
    return pa.RecordBatch.from_pydict(
        {
            "text/0": [each[0] for each in drawn],
            "text/1": [each[1] for each in drawn],
            "choices": several,
            "label": [str(each[3]) for each in drawn],
        }
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def outcome(model, features, batches) -> dict[str, torch.Tensor]:
    """Return the numbers of all choices, in the order of their rows, and the gradients of the sum of the losses."""
    model.zero_grad()
    packer = packer_of(model, CPU, None)
    numbers = torch.zeros(features.num_features, TASK.width, dtype=torch.float64)
    total = torch.zeros(())
    for chosen in batches:
        batch = on_device(TASK.collate(features, chosen, seed=0), packer, CPU)
        output = model(**TASK.inputs(batch))
        numbers[torch.from_numpy(term_places(features.num_terms, np.array(chosen)))] = TASK.outputs(
            output, batch
        ).double()
        total = total + TASK.losses(output, batch, 0.0).sum()
    total.backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"numbers": numbers.detach(), **gradients}


def expected_of(model, features, tokenizer, rows) -> dict[str, torch.Tensor]:
    """Return the same by transformers alone: [1, C, T] of each row, padded by the tokenizer, with its own loss."""
    model.zero_grad()
    found, total = [], torch.zeros((), dtype=torch.float64)
    for number in range(rows.num_rows):
        row = rows.slice(number, 1)
        encoded = tokenizer(*choices.pairs_of(row), padding=True, return_tensors="pt", truncation=True, max_length=24)
        label = torch.tensor([int(row.column("label")[0].as_py())])
        names = ("input_ids", "attention_mask", "token_type_ids")
        taken = {name: encoded[name][None] for name in names if name in features.token_columns or "mask" in name}
        output = model(**taken, labels=label)
        found.append(output.logits)
        total = total + output.loss
    total.backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"numbers": torch.cat(found).detach(), **gradients}


@pytest.mark.parametrize("family", [*PACKED_TYPES, "deberta-v2"])
def test_packed_and_padded_choices_give_what_transformers_gives(family, tokenizer, monkeypatch):
    takes_types = family not in ("distilbert", "modernbert")
    monkeypatch.setattr(
        tokenizer, "model_input_names", ["input_ids", "attention_mask", *(["token_type_ids"] * takes_types)]
    )
    more = {"type_vocab_size": 2} if takes_types else {}
    rows = rows_of()
    features = TASK.encode(rows, tokenizer, 24)
    expected = expected_of(chooser(family, **more), features, tokenizer, rows)
    assert expected["numbers"].std(dim=1).min() > 1e-3  # choices differ, so that a mixture would be seen
    model = leave_out_other_tokens(chooser(family, **more))
    batches = [[3, 0, 8], [1], [2, 4, 5, 6, 7]]
    torch.testing.assert_close(outcome(model, features, batches), expected, rtol=1e-5, atol=1e-5)
    assert can_pack(model) == (family != "deberta-v2")
    if can_pack(model):
        take_packed_rows(model)
        torch.testing.assert_close(outcome(model, features, batches), expected, rtol=1e-5, atol=1e-5)
        batch = TASK.collate(features, [0, 4], seed=0)  # of a model that packs what it is given
        found = TASK.outputs(model(**TASK.inputs(batch)), batch).double()
        torch.testing.assert_close(found, expected["numbers"][[0, 4]], rtol=1e-5, atol=1e-5)


def test_a_missing_choice_changes_nothing_but_that_it_is_not_there(tokenizer):
    model = leave_out_other_tokens(chooser())
    take_packed_rows(model)
    whole, short = (TASK.encode(rows_of(short=each), tokenizer, 24) for each in (False, True))
    precision = Precision(CPU, None)
    everything = outputs_of(model, TASK, whole, np.arange(9), precision)
    found = outputs_of(model, TASK, short, np.arange(9), precision)
    is_there = torch.from_numpy(short.feature_columns[choices.CHOICE_LENGTHS] > 0)
    assert 0 < (~is_there).sum() < 9 and (found[~is_there] == MISSING).all()
    torch.testing.assert_close(found[is_there], everything[is_there], rtol=1e-5, atol=1e-6)
    assert is_there[torch.arange(9), found.argmax(dim=1)].all()


@pytest.mark.parametrize("short", [False, True])
def test_smoothing_spreads_over_the_choices_that_are_there(tokenizer, short):
    features = TASK.encode(rows_of(short=short), tokenizer, 24)
    usable = np.flatnonzero(features.feature_columns["labels"] >= 0)
    batch = TASK.collate(features, usable, seed=0)
    model = chooser()
    output = model(**TASK.inputs(batch))
    numbers, labels = TASK.outputs(output, batch), batch["labels"]
    for row, (each, is_there, label) in enumerate(zip(numbers, batch["is_choice"], labels, strict=True)):
        place = is_there[:label].sum()[None]  # among those that are there
        wanted = F.cross_entropy(each[is_there][None], place, label_smoothing=0.1)
        torch.testing.assert_close(TASK.losses(output, batch, 0.1)[row], wanted)
    TASK.losses(output, batch, 0.1).sum().backward()
    assert all(torch.isfinite(each.grad).all() for each in model.parameters() if each.grad is not None)


def test_an_electra_that_reads_other_tokens_is_computed_whole():
    for summary, cut in (("first", True), ("mean", False), ("last", False)):
        model = leave_out_other_tokens(chooser("electra", summary_type=summary))
        assert can_pack(model) == cut


@pytest.mark.parametrize("setting", [{"class_weights": "auto"}, {"balanced_sampling": True}, {"focal_gamma": 2.0}])
def test_what_weighs_classes_is_refused(tokenizer, setting):
    settings = TrainConfig("m", train_file="x", **setting)
    with pytest.raises(UsageError, match="the rows have no classes: learnt is one of 4 choices"):
        objective.choose(settings, TASK, TASK.encode(rows_of(), tokenizer, 24), CPU, print)


def saved(folder, tokenizer, family: str = "bert", **more: object):
    """Write a model that transformers alone has trained, so to speak."""
    chooser(family, **more).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_was_trained_elsewhere_takes_any_number_of_choices(tmp_path, tokenizer):
    folder = saved(tmp_path / "model", tokenizer)
    rows = [
        {"question": "a film", "choices": ["good", "bad", None, "odd"]},
        {"question": "a plot", "choices": ["good film", "bad"]},
        {"question": "a plot", "choices": ["good film"]},
    ]
    *found, wrong = predict(str(folder), rows, num_threads=1)
    model = AutoModelForMultipleChoice.from_pretrained(folder).eval()
    for row, one in zip(rows, found, strict=False):
        there = [each for each in row["choices"] if each]
        encoded = tokenizer([row["question"]] * len(there), there, padding=True, return_tensors="pt")
        with torch.inference_mode():
            shares = model(**{name: each[None] for name, each in encoded.items()}).logits.softmax(dim=1)[0]
        assert one["choice"] == there[int(shares.argmax())] and row["choices"][one["label"]] == one["choice"]
        given = [each for each, choice in zip(one["probabilities"], row["choices"], strict=True) if choice]
        np.testing.assert_allclose(given, shares, atol=1e-5)
    assert wrong == {"error": "it has 1 choice, and needs two or more"}


def test_a_model_without_a_head_for_choices_is_refused_where_it_should_predict_them(tmp_path, tokenizer):
    folder = saved(tmp_path / "model", tokenizer)
    task = {"format": 1, **TASK.to_json(), "max_seq_length": 24}
    (folder / "task.json").write_text(json.dumps(task))
    with pytest.raises(UsageError, match="its task.json has 1 outputs, its model 2"):
        models.load_trained(str(folder))


def test_more_choices_than_the_training_had_are_an_error_of_their_row_or_of_the_columns(tmp_path, tokenizer):
    folder = saved(tmp_path / "model", tokenizer, num_labels=1)
    task = MultipleChoice(Columns(("question", "choices"), "label", form="choices"), 2, "letters")
    (folder / "task.json").write_text(json.dumps({"format": 1, **task.to_json(), "max_seq_length": 24}))
    rows = [{"question": "a film", "choices": ["good", "bad"]}, {"question": "a film", "choices": ["a", "b", "c"]}]
    found, wrong = predict(str(folder), rows, num_threads=1)
    assert list(found) == ["label", "choice", "probability_A", "probability_B"]
    assert wrong == {"error": "it has 3 choices, and the model takes 2 at most"}
    (tmp_path / "rows.csv").write_text("q,a,b,c\na film,good,bad,odd\n")
    flags = {"text_column_names": "q,a,b,c", "num_threads": 1}
    with pytest.raises(UsageError, match="3 columns hold choices; 2, as in training"):
        list(predict(str(folder), str(tmp_path / "rows.csv"), **flags))
    (one,) = predict(str(folder), str(tmp_path / "rows.csv"), **{**flags, "text_column_names": "q,a,b"})
    assert one == found


def test_a_head_that_is_kept_or_drawn_is_reported(tmp_path, workshop, tokenizer):
    lines: list[str] = []
    models.load_model(TrainConfig(str(workshop.model), train_file="x"), TASK, report=lines.append)
    assert any("its head has 2 output(s): a new one is drawn for 1 number(s)" in each for each in lines)
    lines.clear()
    models.load_model(TrainConfig(str(saved(tmp_path / "m", tokenizer)), train_file="x"), TASK, report=lines.append)
    assert any("its head is kept: 1 number(s)" in each for each in lines)
    shutil.rmtree(tmp_path / "m")


@pytest.mark.parametrize(
    ("labels_are", "names"), [("from_0", [0, 1, 2, 3]), ("from_1", [1, 2, 3, 4]), ("letters", "ABCD")]
)
def test_predictions_name_choices_as_the_labels_of_the_training_rows(tokenizer, labels_are, names):
    task = MultipleChoice(None, 4, labels_are)
    assert from_json(json.loads(json.dumps(task.to_json()))) == task
    rows = rows_of(2, short=True)
    features = task.encode(rows.drop_columns(["label"]), tokenizer, 24)
    outputs = np.array([[0, 1, 2, MISSING], [3, MISSING, 0, 1]], dtype=np.float32)
    found = {name: each.to_pylist() for name, each in task.predict_rows(outputs, features, rows).items()}
    texts = rows.column("choices").to_pylist()
    assert found["label"] == [names[2], names[0]] and found["choice"] == [texts[0][2], texts[1][0]]
    assert [list(found)[2:], found[f"probability_{names[3]}"][0]] == [[f"probability_{each}" for each in names], 0]
    assert task.output_names(False, None) == list(found)
    best = {name: each.to_pylist() for name, each in task.predict_rows(outputs, features, rows, 4).items()}
    assert [best[f"label{end}"][0] for end in ("", "_2", "_3", "_4")] == [names[2], names[1], names[0], None]
    assert best["probability_4"] == [None, None] and task.output_names(False, 4) == list(best)
    assert "choice" not in task.predict_rows(outputs, features, None)
