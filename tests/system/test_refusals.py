"""What ringtune-train refuses: in one line, and with nothing lost."""

from __future__ import annotations

import sys

import pytest
from conftest import Workshop, ranks, run_command
from tiny import write_rows
from usage import CLI, usage_error

pytestmark = pytest.mark.system


def test_bad_rows_end_in_one_line_on_many_ranks_and_nothing_is_written(workshop: Workshop, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\nfine,0.5\nbad,nan\n")
    done = ranks(2, *CLI, *workshop.arguments(tmp_path / "run", train_file=bad, validation_file=None))
    assert "bad.csv:3: the rating in column 'label' is 'nan'" in usage_error(done)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_batch_sizes_that_do_not_multiply_out_are_refused_with_the_nearest(workshop: Workshop, tmp_path):
    arguments = workshop.arguments(tmp_path / "run", global_batch_size=30, per_device_train_batch_size=8)
    assert "nearest legal --global_batch_size: 16 or 32" in usage_error(ranks(2, *CLI, *arguments))


def test_an_output_folder_of_something_else_is_left_alone(workshop: Workshop, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    done = ranks(0, *CLI, *workshop.arguments(tmp_path / "run", overwrite_output_dir="true"))
    assert "holds thesis.tex" in usage_error(done)
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_rerun_with_other_mathematics_or_another_model_or_other_rows_is_refused(
    workshop: Workshop, reference, tmp_path
):
    folder = reference(1)
    before = {each: each.stat().st_mtime_ns for each in folder.rglob("*") if each.name[0] != "."}
    assert "--learning_rate" in usage_error(ranks(0, *CLI, *workshop.arguments(folder, learning_rate=0.5)))
    assert "--model_name_or_path" in usage_error(
        ranks(0, *CLI, *workshop.arguments(folder, model_name_or_path=tmp_path))
    )
    other = write_rows(tmp_path / "other.csv", 101, 99)
    done = ranks(0, *CLI, *workshop.arguments(folder, max_steps=14, train_file=other))
    assert "the data is not what it was" in usage_error(done)
    assert before == {each: each.stat().st_mtime_ns for each in folder.rglob("*") if each.name[0] != "."}


def test_a_checkpoint_of_another_model_is_refused(workshop: Workshop, reference, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    other = tmp_path / "other"
    AutoTokenizer.from_pretrained(workshop.model).save_pretrained(other)
    config = BertConfig.from_pretrained(workshop.model)
    config.hidden_size = 48
    BertForSequenceClassification(config).save_pretrained(other)
    state = reference(1) / "checkpoint-12"
    copy = tmp_path / "copy"
    copy.mkdir()
    for each in state.iterdir():
        (copy / each.name).write_bytes(each.read_bytes())
    done = ranks(0, *CLI, *workshop.arguments(tmp_path / "run", model_name_or_path=other, resume_from_checkpoint=copy))
    assert "--model_name_or_path" in usage_error(done)


@pytest.mark.parametrize("name", ["model_name_or_path", "dataset_name"])
def test_a_hub_that_cannot_be_reached_is_told_at_once_and_not_waited_for(name, workshop: Workshop, tmp_path):
    """The libraries try again and again: for 50 seconds where the name is not known, for minutes without a route."""
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    nobody |= {name: "" for each in ("https_proxy", "all_proxy") for name in (each, each.upper())}
    changes = {"train_file": None, "validation_file": None} if name == "dataset_name" else {}
    arguments = workshop.arguments(tmp_path / "run", **changes, **{name: "owner/name"})
    done = run_command([sys.executable, *CLI, *arguments], env=nobody)
    assert usage_error(done) and "Retrying" not in done.output, done.output
    assert "owner/name: no such folder, and the hub cannot be reached (127.0.0.1: Connection refused)" in done.output
    missing = run_command([sys.executable, *CLI, *arguments, f"--{name}", "/no/such"], env=nobody)
    assert usage_error(missing) and "the hub cannot be reached" not in missing.output, missing.output
