"""The commands, started as a user starts them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import Workshop, digests, ranks, run_command, script
from safetensors.torch import load_file
from usage import CLI, usage_error

pytestmark = pytest.mark.system


def test_horovodrun_trains_over_mpi_and_over_gloo_with_the_same_bits(workshop: Workshop, tmp_path):
    found = []
    for controller in ("--mpi", "--gloo"):
        folder = tmp_path / controller
        command = [script("horovodrun"), controller, "-np", "2", script("ringtune-train")]
        done = run_command([*command, *workshop.arguments(folder, mode="exact", max_steps=4)])
        assert done.returncode == 0, done.output
        assert "best accuracy" in done.output and "samples/s" in done.output and "37/37" in done.output
        found.append(json.loads((folder / "checkpoint-4" / "manifest.json").read_text())["model.safetensors"])
    assert found[0] == found[1]


def test_the_final_folder_and_each_checkpoint_load_and_agree_with_the_model(workshop: Workshop, reference):
    code = (
        "import sys, torch; from transformers import AutoModelForSequenceClassification as A, AutoTokenizer as T\n"
        "for f in sys.argv[1:]:\n"
        "    m = A.from_pretrained(f).eval(); t = T.from_pretrained(f)\n"
        "    print(m(**t('the film was good', return_tensors='pt')).logits.tolist(), m.config.id2label)"
    )
    folder = reference(1)
    done = subprocess.run(
        [sys.executable, "-c", code, folder, folder / "checkpoint-12"], capture_output=True, text=True, check=True
    )
    final, last = done.stdout.splitlines()
    assert final == last
    assert "{0: 'down', 1: 'up'}" in final


def test_every_checkpoint_and_the_final_folder_have_the_logits_of_the_model_that_was_trained(workshop, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification

    done = workshop.train(
        1, tmp_path / "run", fault=("logits", str(tmp_path / "logits.json")), save_steps=5, save_total_limit=9
    )
    assert done.returncode == 0, done.output
    noted = json.loads((tmp_path / "logits.json").read_text())
    assert list(noted["logits"]) == ["5", "9", "10", "12"]  # by cadence, before an evaluation, and at the end
    rows = {name: torch.tensor(each) for name, each in noted["rows"].items()}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for step, logits in [*noted["logits"].items(), (None, noted["logits"]["12"])]:
            folder = tmp_path / "run" / (f"checkpoint-{step}" if step else "")
            with torch.no_grad():
                found = AutoModelForSequenceClassification.from_pretrained(folder).eval()(**rows).logits
            assert found.tolist() == logits, folder
    finally:
        torch.set_num_threads(threads)


def test_the_logits_of_a_reloaded_checkpoint_are_those_the_run_scored(workshop: Workshop, reference):
    """The evaluation of the last step, repeated by a plain transformers loop over the dev file."""
    import csv

    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = reference(1)
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    with workshop.dev.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with torch.inference_mode():
        logits = torch.cat(
            [
                model(**tokenizer(row["text"], truncation=True, max_length=32, return_tensors="pt")).logits
                for row in rows
            ]
        )
    labels = torch.tensor([model.config.label2id[row["label"]] for row in rows])
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    last = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if '"eval"' in line][-1]
    assert last["eval_loss"] == pytest.approx(loss, abs=1e-5)
    assert last["eval_accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item(), abs=1e-7)


def test_an_unknown_flag_is_told_once_by_many_ranks(workshop: Workshop, tmp_path):
    done = ranks(2, *CLI, *workshop.arguments(tmp_path / "run", learing_rate=1))
    assert "nearest is learning_rate" in usage_error(done)


def test_a_dry_run_shows_the_plan_and_writes_nothing(workshop: Workshop, tmp_path):
    done = ranks(2, *CLI, *workshop.arguments(tmp_path / "run"), "--dry_run")
    assert done.returncode == 0, done.output
    assert "12 steps of 12 rows in 2 shards over 2 rank(s)" in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flag", "value"), [("freeze", "nosuch*"), ("metric_for_best_model", "foo")])
def test_a_dry_run_refuses_what_only_the_assembled_model_and_loop_know(workshop: Workshop, tmp_path, flag, value):
    done = ranks(0, *CLI, *workshop.arguments(tmp_path / "run", **{flag: value}), "--dry_run")
    assert f"--{flag}" in usage_error(done) and value in usage_error(done)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_says_so_and_more_epochs_go_on_from_it(workshop: Workshop, tmp_path):
    arguments = workshop.arguments(tmp_path / "run", max_steps=4)
    assert ranks(0, *CLI, *arguments).returncode == 0
    assert "finished already at step 4" in ranks(0, *CLI, *arguments).output
    done = ranks(0, *CLI, *workshop.arguments(tmp_path / "run", max_steps=6))
    assert done.returncode == 0 and "checkpoint-4" in done.output


def test_a_run_whose_records_were_spoilt_goes_on_from_its_checkpoint(workshop: Workshop, reference, tmp_path):
    folder = Path(shutil.copytree(reference(1), tmp_path / "run", symlinks=True))
    (folder / "finished.json").write_text("{")
    with (folder / "metrics.jsonl").open("ab") as stream:
        stream.write(b'3\n{"note": "by hand"}\n\xff')
    done = ranks(0, *CLI, *workshop.arguments(folder))
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert json.loads((folder / "finished.json").read_text())["step"] == 12
    assert '{"note": "by hand"}' in (folder / "metrics.jsonl").read_text()


@pytest.mark.parametrize("name", ["metrics.jsonl", ".lock.holder"])
def test_what_cannot_be_written_is_one_line_and_exit_code_2_on_many_ranks(
    workshop: Workshop, reference, tmp_path, name
):
    """On the main thread of rank 0, and in work that all ranks wait for."""
    folder = Path(shutil.copytree(reference(1), tmp_path / "run", symlinks=True))
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    done = ranks(2, *CLI, *workshop.arguments(folder, max_steps=14))
    assert f"{folder / name}: Is a directory; free space, and permission to write there" in usage_error(done)
    assert digests(folder, 12) == digests(reference(1), 12)


def test_a_run_started_again_from_its_own_configuration_goes_on_even_if_it_once_overwrote(workshop: Workshop, tmp_path):
    folder = tmp_path / "run"
    for _ in range(2):
        assert ranks(0, *CLI, *workshop.arguments(folder, max_steps=4, overwrite_output_dir="true")).returncode == 0
    done = ranks(0, *CLI, "--config", str(folder / "config.yaml"), "--max_steps", "6")
    assert done.returncode == 0 and "going on from" in done.output, done.output


def test_regression_bf16_and_fp16_with_loss_scaling_train_and_resume(workshop: Workshop, tmp_path):
    ratings = tmp_path / "ratings.csv"
    lines = workshop.rows.read_text().splitlines()[1:]
    ratings.write_text(
        "text,label\n" + "\n".join(f"{line.split(',')[0]},{0.25 * (len(line) % 7)}" for line in lines) + "\n"
    )
    for precision in ("bf16", "fp16"):
        changes = {precision: "true", "train_file": ratings, "validation_file": ratings, "save_steps": 3}
        done = workshop.train(2, tmp_path / precision, kill_at=7, **changes)  # the second save waits for the first
        assert done.returncode != 0
        done = workshop.train(2, tmp_path / precision, **changes)
        assert done.returncode == 0, done.output
        assert "eval_spearmanr" in done.output and "going on from" in done.output


@pytest.mark.parametrize("moment", ["tokenising", "evaluating"])
def test_a_stop_while_tokenising_or_evaluating_is_agreed_on(workshop: Workshop, tmp_path, moment):
    """SIGTERM to rank 1 only: it neither tokenises nor leads."""
    patch = tmp_path / "patch.py"
    patch.write_text(
        "import os, signal, sys, time\nfrom ringtune.train import cli\n"
        "rank = int(os.environ['OMPI_COMM_WORLD_RANK'])\n"
        "def stop(): os.kill(os.getpid(), signal.SIGTERM)\n"
        + {
            # Rank 0 tokenises until it hears of the stop that only rank 1 was asked for.
            "tokenising": "import ringtune.train.comm as comm\nwork = comm.Comm.work_together\n"
            "def together(self, job, flag, name):\n"
            "    def slow():\n"
            "        while not flag.is_set(): time.sleep(0.01)\n"
            "        return job()\n"
            "    if name != 'tables/prepare': return work(self, job, flag, name)\n"
            "    if rank == 1: stop()\n"
            "    return work(self, slow if rank == 0 else job, flag, name)\n"
            "comm.Comm.work_together = together\n",
            "evaluating": "import ringtune.train.loop as loop\npredict = loop.predict_features\n"
            "def stopped(*a, **k):\n"
            "    if rank == 1: stop()\n"
            "    return predict(*a, **k)\n"
            "loop.predict_features = stopped\n",
        }[moment]
        + "cli.main(sys.argv[1:])\n"
    )
    cache = tmp_path / "cache"  # its own: the tokens are not there yet
    done = ranks(2, str(patch), *workshop.arguments(tmp_path / "run", cache_dir=cache, eval_steps=5))
    assert done.returncode == 75, done.output
    assert "stopped on request" in done.output
    assert ranks(2, *CLI, *workshop.arguments(tmp_path / "run", cache_dir=cache, eval_steps=5)).returncode == 0


def test_early_stopping_and_the_best_model_are_one_agreed_decision(workshop: Workshop, tmp_path):
    changes = {
        "eval_steps": 1,
        "early_stopping_patience": 2,
        "load_best_model_at_end": "true",
        "save_total_limit": 1,
        "learning_rate": 1e-9,
        "max_steps": 12,
    }
    done = ranks(2, *CLI, *workshop.arguments(tmp_path / "run", **changes))
    assert done.returncode == 0, done.output
    finished = json.loads((tmp_path / "run" / "finished.json").read_text())
    assert (finished["stopped_at"], finished["best"]["step"]) == (3, 1)  # nothing is learnt at this rate
    assert os.readlink(tmp_path / "run" / "best") == "checkpoint-1"
    assert sorted(each.name for each in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-3"]
    final, best, last = (
        load_file(tmp_path / "run" / each / "model.safetensors") for each in ("", "best", "checkpoint-3")
    )
    assert all(torch.equal(final[name], best[name]) for name in best)
    assert not all(torch.equal(final[name], last[name]) for name in last)  # the last one is another


def option_strings(parser) -> set[str]:
    """Return every long flag of a command and of the commands below it."""
    found = {word for action in parser._actions for word in action.option_strings if word.startswith("--")}
    for action in parser._actions:
        for below in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            found |= option_strings(below)
    return found


def test_what_the_readme_says_of_flags_and_targets_exists():
    import re

    from ringtune.launch import cli as launch
    from ringtune.slurm import parser as slurm
    from ringtune.train import config as train
    from ringtune.train import glue, series
    from ringtune.train.arguments import FLAGS_ONLY
    from ringtune.train.predict import config as predict

    root = Path(__file__).parents[2]
    text = (root / "README.md").read_text()
    settings = (*train.FIELDS, *predict.COMMAND.fields, *FLAGS_ONLY)
    known = {f"--{name}" for name in settings} | {"--nv"}  # apptainer's
    known |= option_strings(launch._parser()) | option_strings(slurm.make_parser())
    known |= option_strings(glue.make_parser()) | option_strings(series.make_parser())
    flags = set(re.findall(r"--[a-z][a-z_0-9-]*", text))
    assert len(flags) > 10 and flags <= known, flags - known
    makefile = (root / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in re.findall(r"^make ([a-z-]+)$", text, re.M))


def test_help_completion_and_the_resolved_configuration_are_printed_at_once(workshop: Workshop, tmp_path):
    train = script("ringtune-train")
    assert "--per_device_train_batch_size" in run_command([train, "--help"]).output
    assert "complete" in run_command([train, "--print_completion", "shtab-bash"]).output
    printed = run_command([train, *workshop.arguments(tmp_path / "run"), "--print_config"]).output
    assert "global_batch_size: 12" in printed


def test_settings_that_leave_nothing_to_choose_the_best_by_are_refused(workshop: Workshop, tmp_path):
    arguments = workshop.arguments(tmp_path / "run", validation_file=None, load_best_model_at_end="true")
    assert "no validation rows to choose the best model by" in usage_error(ranks(2, *CLI, *arguments))
    arguments = workshop.arguments(tmp_path / "run", do_predict="true")
    assert "--do_predict: there are no test rows" in usage_error(ranks(0, *CLI, *arguments))
