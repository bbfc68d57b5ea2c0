"""A flag that a command does not have is answered in one line with the nearest one, or with the command's own way."""

from __future__ import annotations

import re

import pytest
from ringtune.launch import cli as launch
from ringtune.slurm import cli as slurm
from ringtune.train import config, flags
from ringtune.train.contract import UsageError
from ringtune.train.predict import config as prediction

AFTER = "come after --"


def answer(capsys: pytest.CaptureFixture[str], main, words: str) -> str:
    """Return the one line with which a command refuses."""
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1 and len(error) < 500
    return error


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run -np 2 --hots a:2 -- true", f"--hots: ringtune-launch run takes no .*; nearest is --hosts; .*{AFTER}"),
        ("run -np 2 --bf16 -- ringtune-train", f"--bf16: .*flags of the program {AFTER}"),
        ("run --nproc_per_node 4 -- true", "--nproc_per_node: .*instead -np N"),
        ("run --mixed_precision bf16 -- true", "instead --bf16 or --fp16 of ringtune-train"),
        ("run --num_proc 4 -- true", "nearest is --num-proc"),
        ("doctor --qick", "--qick: ringtune-launch doctor .*nearest is --quick"),
        ("horovod --cpus", "--cpus: ringtune-launch horovod .*nearest is --cpu"),
        ("horovod stray", "stray: ringtune-launch horovod takes no such argument"),
        ("completion fish", "shell: invalid choice: 'fish'"),
        ("rum", "COMMAND: invalid choice: 'rum'"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_ringtune_launch(capsys, words, expected):
    assert re.search(f"^ringtune-launch: .*{expected}", answer(capsys, launch.main, words))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("submit --nods 2 -- --seed 1", "--nods: .*nearest is --nodes"),
        ("submit --dryrun -- --seed 1", "--dryrun: .*nearest is --dry-run"),
        ("script --gpus_per_node=4 -- --seed 1", "nearest is --gpus-per-node"),
        ("submit --learning_rate 1", f"--learning_rate: .*; flags of ringtune-train {AFTER}"),
        ("resume run --tim 3", "--tim: .*nearest is --time"),
        ("status --jsn", "--jsn: ringtune-slurm status .*nearest is --json"),
        ("wait run --timeot 3", "nearest is --timeout"),
        ("logs", "logs: the following arguments are required"),
        ("status --stalled-after x", "--stalled-after: invalid float value"),
        ("subm", "COMMAND: invalid choice: 'subm'"),
        ("script -- --model_name_or_path m --train_file x.csv --deepspeed d.json", "--deepspeed: d.json is refused"),
    ],
)
def test_ringtune_slurm(capsys, words, expected):
    assert re.search(f"^ringtune-slurm: .*{expected}", answer(capsys, slurm.main, words))


@pytest.mark.parametrize("command", [config.COMMAND, prediction.COMMAND], ids=lambda each: each.name)
def test_ringtune_train_and_ringtune_predict(command):
    for name in command.fields:
        with pytest.raises(UsageError, match=f"--{name}s: there is no such flag; nearest is "):
            flags.translate(command, [f"--{name}s"], lambda line: None)
