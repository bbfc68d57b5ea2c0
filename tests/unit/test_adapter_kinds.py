"""Adapters of other kinds of tasks than classification, and of bases that say something else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from adapters import change, settings, tensors_of, write_adapter
from ringtune.train import adapter_settings, checkpoint, model
from ringtune.train import task as tasks
from ringtune.train.contract import UsageError
from ringtune.train.task import multiple_choice
from ringtune.train.task.classification import Classification
from ringtune.train.task.masked_lm import MaskedLM
from ringtune.train.task.masking import Masking
from ringtune.train.task.question_answering import QuestionAnswering
from ringtune.train.task.token_classification import TokenClassification
from safetensors.torch import load_file

OTHERS: dict[str, tasks.Task] = {
    "TokenClassification": TokenClassification(None, ("O", "B-A", "I-A"), "iob2"),
    "QuestionAnswering": QuestionAnswering(None),
    "MultipleChoice": multiple_choice.of_model(),
}


@pytest.fixture
def base(workshop, tmp_path) -> Path:
    """A model that predicts masked words: only an adapter says what its head is."""
    folder = Path(shutil.copytree(workshop.model, tmp_path / "base"))
    change(folder / "config.json", architectures=["BertForMaskedLM"])
    return folder


@pytest.mark.parametrize("kind", OTHERS)
def test_an_adapter_of_another_kind_of_head_is_read_here_and_by_peft_with_the_same_answers(base, tmp_path, kind):
    import peft
    import transformers

    folder, task = write_adapter(tmp_path / "adapter", base, OTHERS[kind], scale=0.3), OTHERS[kind]
    mine, found, _ = model.load_trained(str(folder))
    assert found == task and type(mine).__name__ == f"BertFor{kind}"
    number = {"num_labels": task.model_settings()["num_labels"], "ignore_mismatched_sizes": True}
    other = getattr(transformers, task.auto_class).from_pretrained(base, **number)
    theirs = peft.PeftModel.from_pretrained(other, folder)
    ids = torch.tensor([[[2, 7, 9, 3], [2, 8, 6, 3]]] if kind == "MultipleChoice" else [[2, 7, 9, 3]])
    with torch.no_grad():
        expected, given = (each.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)) for each in (theirs, mine))
    for name, values in expected.items():
        assert values.std() > 0.01
        torch.testing.assert_close(given[name].reshape(values.shape), values, atol=1e-5, rtol=1e-4)
    # Trained on, it is the same adapter; of peft alone it is known by what its settings say.
    again = tensors_of(model.load_model(settings(folder), task))
    assert all(torch.equal(again[name], each) for name, each in load_file(folder / checkpoint.ADAPTER_FILE).items())
    (folder / "task.json").unlink()
    if kind == "QuestionAnswering":
        assert type(model.load_trained(str(folder))[1]) is QuestionAnswering


def test_an_adapter_of_peft_is_a_classifier_whatever_its_base_is(base, tmp_path):
    folder = write_adapter(tmp_path / "adapter", base, Classification(None, ("down", "up")))
    (folder / "task.json").unlink()
    network, task, _ = model.load_trained(str(folder))
    assert type(network).__name__ == "BertForSequenceClassification" and isinstance(task, Classification)


def test_an_adapter_that_does_not_say_what_it_is_for_is_refused(base, tmp_path):
    folder = write_adapter(tmp_path / "adapter", base, Classification(None, ("down", "up")))
    (folder / "task.json").unlink()
    for task_type in (None, "FEATURE_EXTRACTION"):
        change(folder / "adapter_config.json", task_type=task_type)
        with pytest.raises(UsageError, match=f"task_type is {task_type}.*SEQ_CLS, TOKEN_CLS, QUESTION_ANS"):
            model.load_trained(str(folder))


def test_what_a_model_is_for_is_read_from_its_class():
    import transformers

    for model_type in ("RoFormer", "Bert", "DebertaV2", "ModernBert"):
        for kind in adapter_settings.TASK_TYPES:
            if hasattr(transformers, f"{model_type}For{kind}"):
                assert adapter_settings.model_by_class(f"{model_type}For{kind}") == kind
    assert adapter_settings.model_by_class("XLNetForQuestionAnsweringSimple") == "QuestionAnswering"
    assert adapter_settings.model_by_class("BertForMaskedLM") == ""


def test_masked_words_take_no_adapter(base):
    with pytest.raises(UsageError, match="--lora_r: masked_lm takes no adapter: the head is tied"):
        model.load_model(settings(base, lora_r=4), MaskedLM(None, Masking()))


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ({"target_modules": 5}, "target_modules is 5; a list of texts or a text"),
        ({"target_modules": [None]}, r"target_modules is \[null\]; a list of texts or a text"),
        ({"modules_to_save": 5}, "modules_to_save is 5; a list of texts"),
        ({"modules_to_save": "classifier"}, 'modules_to_save is "classifier"; a list of texts'),
        ({"use_dora": "yes"}, 'use_dora is "yes"; true or false'),
        ({"r": "8"}, 'r is "8"; a number'),
        ({"r": True}, "r is true; a number"),
        ({"rank_pattern": ["query"]}, "rank_pattern is .*; an object"),
        ({"bias": "some"}, 'bias is "some"; none or all or lora_only'),
        ({"layers_to_transform": ["0"]}, "layers_to_transform is .*; a list of numbers or a number"),
    ],
)
def test_a_setting_of_another_type_than_pefts_is_refused(setting, wrong):
    with pytest.raises(UsageError, match=f"^here: {wrong}"):
        adapter_settings.build({"peft_type": "LORA", **setting}, "here", "SequenceClassification")


@pytest.mark.parametrize("kind", adapter_settings.TYPES)
def test_settings_are_taken_as_peft_writes_them(kind):
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    written = PEFT_TYPE_TO_CONFIG_MAPPING[kind]().to_dict()  # type: ignore[index]
    content = {name: sorted(value) if isinstance(value, set) else value for name, value in written.items()}
    assert adapter_settings.build(json.loads(json.dumps(content)), "here", "SequenceClassification")


@pytest.mark.parametrize("name", ["modules_to_save", "exclude_modules"])
def test_a_module_that_is_not_there_is_refused_and_heads_of_other_models_are_not(workshop, tmp_path, name):
    file, task = tmp_path / "a.json", Classification(None, ("down", "up"))
    file.write_text(json.dumps({"peft_type": "LORA", name: ["pooler", "clasifier"]}))
    with pytest.raises(UsageError, match=f"no module of the model is named 'clasifier', of {name}; .*nearest is class"):
        model.load_model(settings(workshop.model, peft_config=str(file)), task)
    file.write_text(json.dumps({"peft_type": "LORA", "modules_to_save": ["classifier", "score"]}))
    assert model.load_model(settings(workshop.model, peft_config=str(file)), task)
