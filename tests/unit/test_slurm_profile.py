"""What a profile, a cluster's defaults in YAML, gives every submission. No SLURM needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from ringtune.slurm import profile, submit
from ringtune.train.contract import UsageError

TRAIN = ("--model_name_or_path", "m", "--train_file", "f.csv")


def test_a_profile_gives_defaults_that_flags_win_over(tmp_path, monkeypatch):
    path = tmp_path / "slurm.yaml"
    path.write_text(
        "sbatch: {partition: gpu, time: 12:00:00, exclusive: true, requeue: false, mem: 8G}\n"
        "setup:\n  - module load cuda\n  - |\n    if true; then\n      echo on\n    fi\n"
        "python: /shared/venv/bin/python\nlauncher: mpirun\ncontainer: {image: x.sif, options: [--nv]}\n"
    )
    found = profile.load(path)
    assert found.sbatch == {"partition": "gpu", "time": "12:00:00", "exclusive": None, "mem": "8G"}
    assert found.setup == ("module load cuda", "if true; then", "  echo on", "fi")
    assert found.container == profile.Container("apptainer", "x.sif", ("--nv",))
    monkeypatch.chdir(tmp_path)
    made = submit.make_job(submit.Submission(train=TRAIN, sbatch={"partition": "debug"}, profile=found))
    assert (made.sbatch["partition"], made.sbatch["mem"], made.launcher) == ("debug", "8G", "mpirun")
    assert made.python == "/shared/venv/bin/python"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "it holds list, not entries"),
        ("sbatsh: {}\n", "sbatsh: unknown entry; sbatch, setup"),
        ("sbatch: [a]\n", "sbatch: ['a'] are not options"),
        ("sbatch: {output: my.log}\n", "sbatch: output: ringtune sets it; the log lies in the run directory"),
        ("sbatch: {time: [1]}\n", "sbatch: time: ['1'] is no value"),
        ("launcher: slurm\n", "launcher: 'slurm' is none; srun, mpirun"),
        ("setup: {a: b}\n", "setup: {'a': 'b'} are not lines"),
        ("container: x.sif\n", "container: 'x.sif' is not understood"),
        ("container: {image: x, runtime: docker}\n", "runtime: 'docker' is none"),
        ("a: b: c\n", "mapping values are not allowed here"),
    ],
)
def test_what_is_wrong_with_a_profile_is_said_by_entry(text, message, tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        profile.load(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_the_profile_in_the_readme_is_one():
    import yaml

    text = (Path(__file__).parents[2] / "README.md").read_text()
    block = text.split("```yaml\n")[1].split("```")[0]
    found = profile.parse(yaml.load(block, Loader=yaml.BaseLoader), "README")
    assert found.sbatch["time"] == "02:00:00" and found.setup == ("module load cuda",)
    assert found.container.options == ("--nv",)
