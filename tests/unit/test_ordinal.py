"""Levels in order: probabilities that add up, levels in the middle of them, and scores as scikit-learn's."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from preparing import load, train
from ringtune.train import model as models
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.task import from_json
from ringtune.train.task.ordinal import Ordinal, medians
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error

TASK = Ordinal(None, ("1", "2", "3", "4"))


def rows(*labels: object) -> str:
    return "text,label\n" + "".join(f"a film,{label}\n" for label in labels)


def outputs_of(numbers: torch.Tensor) -> torch.Tensor:
    return TASK.outputs(SimpleNamespace(logits=numbers), {})


def test_a_level_has_the_probability_of_the_steps_to_it_and_no_more():
    torch.manual_seed(1)
    numbers = torch.randn(6, 3) * 3
    goes_on = torch.sigmoid(numbers)
    expected = torch.stack(
        [
            1 - goes_on[:, 0],
            goes_on[:, 0] * (1 - goes_on[:, 1]),
            goes_on[:, 0] * goes_on[:, 1] * (1 - goes_on[:, 2]),
            goes_on.prod(dim=1),
        ],
        dim=1,
    )
    found = outputs_of(numbers).exp()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(6))
    assert torch.isfinite(outputs_of(torch.tensor([[300.0, -300.0, 300.0]]))).all()


def test_the_loss_is_that_of_the_questions_that_a_row_reaches():
    """The paper's, of CORN: a binary cross entropy of each level up to the row's own."""
    torch.manual_seed(2)
    numbers, labels = torch.randn(4, 3), torch.arange(4)
    losses = TASK.losses(SimpleNamespace(logits=numbers), {"labels": labels}, 0.0)
    for row, label in enumerate(labels.tolist()):
        reached = numbers[row, : min(label + 1, 3)]
        answers = torch.tensor([1.0] * label + [0.0] * (len(reached) - label))
        torch.testing.assert_close(losses[row], F.binary_cross_entropy_with_logits(reached, answers, reduction="sum"))


def test_the_level_in_the_middle_has_the_smallest_expected_distance():
    torch.manual_seed(3)
    outputs = outputs_of(torch.randn(200, 3) * 2).numpy()
    levels = np.arange(4)
    distances = np.exp(outputs.astype(np.float64)) @ np.abs(levels[:, None] - levels)
    assert (medians(outputs) == distances.argmin(axis=1)).all() and (medians(outputs) != outputs.argmax(axis=1)).any()


def test_scores_are_those_of_scikit_learn_however_rows_are_parted():
    torch.manual_seed(4)
    outputs, labels = outputs_of(torch.randn(50, 3) * 2).numpy(), np.random.default_rng(1).integers(0, 4, 50)
    guesses = medians(outputs)
    found = TASK.scores([(outputs[:20], labels[:20]), (outputs[20:], labels[20:])])
    assert found.num_rows == 50 and found.values == TASK.scores([(outputs, labels)]).values
    expected = {
        "accuracy": accuracy_score(labels, guesses),
        "mae": mean_absolute_error(labels, guesses),
        "quadratic_kappa": cohen_kappa_score(labels, guesses, weights="quadratic", labels=range(4)),
        "loss": -outputs[np.arange(50), labels].astype(np.float64).mean(),
    }
    assert found.values == pytest.approx(expected, abs=1e-6)
    low = np.log(np.array([[0.97, 0.01, 0.01, 0.01]], dtype=np.float32))
    assert TASK.scores([(low, np.zeros(1, dtype=np.int64))]).values["quadratic_kappa"] == 0
    assert TASK.scores([(outputs[:0], labels[:0])]) is None


def test_levels_are_all_whole_numbers_from_the_lowest_to_the_highest(tmp_path):
    found = load(tmp_path, rows(5, "01", "3.0", 2), name="t.csv", task="ordinal")
    assert found.task.levels == ("1", "2", "3", "4", "5")
    assert found.train.feature_columns["labels"].tolist() == [4, 0, 2, 1]
    assert "label: column label, 5 levels, 1 to 5" in found.report[0]
    assert any("no row has the level 4" in line for line in found.report)
    assert from_json(json.loads(json.dumps(found.task.to_json()))) == found.task
    assert load(tmp_path, rows(5, 1), name="u.csv").task.kind == "classification"


def test_declared_classes_are_levels_in_their_order(tmp_path):
    import datasets

    kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["poor", "fair", "good"])}
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [2, 0]}, features=datasets.Features(kinds))
    data.save_to_disk(str(tmp_path / "set"))
    found = train(tmp_path, tmp_path / "set", task="ordinal")
    assert found.task.levels == ("poor", "fair", "good")
    assert found.train.feature_columns["labels"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (rows(1, 2, "good"), {}, "t.csv:4: the label 'good' in column 'label' is no whole number"),
        (rows(1, 2.5), {}, "t.csv:3: the label '2.5' in column 'label' is no whole number"),
        (
            rows(1, 2.0, "1000000000.0"),
            {},
            "'1000000000.0' in column 'label' is too large for a level: 10 digits",
        ),
        (rows(1, "-" + "9" * 5000), {}, "is too large for a level: 5000 digits"),
        (rows(1, "--5"), {}, "the label '--5' in column 'label' is no whole number"),
        (rows(1, ""), {}, "t.csv:3: there is no label in column 'label'"),
        (rows(1, 1), {}, "t.csv: all rows have the label '1'"),
        (rows(1, 1000), {}, "t.csv: its labels have 1000 levels"),
        (rows(1, 2), {"regression": True}, "--task ordinal: --regression is set"),
        (rows("a;b", "b"), {"label_separator": ";"}, "a row may have several labels"),
    ],
)
def test_labels_that_are_no_levels_are_refused(tmp_path, content, settings, message):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, content, name="t.csv", task="ordinal", **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_level_that_the_training_rows_do_not_have_is_refused_by_its_line(tmp_path):
    with pytest.raises(UsageError, match=r"dev_t.csv:2: the label '3' is no level of the training rows; 1, 2"):
        load(tmp_path, rows(1, 2), rows(3), name="t.csv", task="ordinal")


def test_a_head_of_other_classes_is_not_taken_for_one_of_levels(workshop):
    lines: list[str] = []
    task = Ordinal(None, ("1", "2", "3"))  # two numbers, as the model's head of two classes gives
    models.load_model(TrainConfig(str(workshop.model), train_file="x"), task, report=lines.append)
    assert any("its head gives its classes no names: a new one is drawn for above 1, above 2" in each for each in lines)
