"""A rank for each GPU, however GPUs are asked for."""

from __future__ import annotations

import pytest
from examples import few_or, run_examples
from hypothesis import strategies as some
from ringtune.slurm import gpus, options
from ringtune.slurm.profile import parse
from ringtune.slurm.submit import Submission, make_job
from ringtune.train.contract import UsageError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"gres": "gpu:4"}, {"ntasks-per-node": "4"}),
        ({"gres": "gpu:a100:4"}, {"ntasks-per-node": "4"}),
        ({"gres": "gpu"}, {"ntasks-per-node": "1"}),
        ({"gres": "nvme:2,gpu:a100:2,gpu:v100:1"}, {"ntasks-per-node": "3"}),
        ({"gres": "gres/gpu:3"}, {"ntasks-per-node": "3"}),
        ({"gres": "gpumem:40"}, {}),
        ({"gres": "none"}, {}),
        ({"gpus-per-node": "a100:2,v100:1"}, {"ntasks-per-node": "3"}),
        ({"gpus-per-node": "4", "gres": "gpu:4"}, {"ntasks-per-node": "4"}),
        ({"gpus": "8"}, {"ntasks": "8"}),
        ({"gpus": "a100:8", "nodes": "2"}, {"ntasks": "8"}),
        ({"gpus": "8", "gpus-per-node": "4"}, {"ntasks-per-node": "4"}),
        ({"gpus": "8", "gpus-per-task": "1"}, {"ntasks": "8"}),
        ({"gpus-per-socket": "2", "sockets-per-node": "2"}, {"ntasks-per-node": "4"}),
        ({"gpus-per-task": "1", "ntasks": "4"}, {}),
        ({"tres-per-task": "cpu=4,gres/gpu:a100=1", "ntasks": "4"}, {}),
        ({"gpus": "8", "ntasks-per-gpu": "1"}, {}),
        ({"gres": "gpu:2", "ntasks": "2"}, {}),
        ({"gres": "gpu:2", "nodes": "2-4", "ntasks-per-node": "2"}, {}),
        ({"gres": "gpu:0"}, {}),
        ({}, {}),
    ],
    ids=str,
)
def test_each_gpu_gets_a_rank(given, expected):
    assert gpus.tasks(given) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"gres": "gpu:4", "ntasks": "2"}, "--ntasks 2: 2 ranks for 4 GPUs: 2 would be idle"),
        ({"gpus": "8", "nodes": "2", "ntasks-per-node": "1"}, "--ntasks-per-node 1: 2 ranks for 8 GPUs: 6 would be"),
        ({"gpus-per-node": "4", "ntasks-per-node": "1"}, "--ntasks-per-node 1: 1 rank for 4 GPUs: 3 would be idle"),
        ({"gpus-per-node": "4", "nodes": "2", "ntasks": "4"}, "--ntasks 4: 4 ranks for 8 GPUs: 4 would be idle"),
        ({"gpus-per-task": "2", "ntasks": "2"}, "--gpus-per-task: 2 gives a rank 2 GPUs, and it uses one"),
        ({"tres-per-task": "gres/gpu:2", "ntasks": "2"}, "--tres-per-task: gres/gpu:2 gives a rank 2 GPUs"),
    ],
    ids=str,
)
def test_tasks_that_would_leave_a_gpu_idle_are_refused(given, words):
    with pytest.raises(UsageError) as error:
        options.complete(given)
    assert words in str(error.value)


def test_the_gpus_of_a_profile_get_their_ranks(tmp_path):
    profile = parse({"sbatch": {"gres": "gpu:4", "nodes": "2"}}, "profile")
    words = ["--model_name_or_path", "m", "--train_file", "t.csv", "--output_dir", str(tmp_path), "--max_steps", "1"]
    assert make_job(Submission(words, profile=profile)).sbatch["ntasks-per-node"] == "4"


COUNTS = some.integers(0, 9)
NODES = some.integers(1, 5)
TYPES = some.sampled_from(["", "a100:", "nvidia_h100_80gb:"])
OTHERS = some.lists(some.sampled_from(["nvme:1", "shard:2", "gpumem:40", "license:1"]), max_size=2)
TASKS = some.one_of(
    some.just({}),
    some.builds(lambda number: {"ntasks": str(number)}, some.integers(1, 40)),
    some.builds(lambda number: {"ntasks-per-node": str(number)}, some.integers(1, 9)),
)


def per_node(name: str, count: int, type_: str, others: list[str]) -> dict[str, str]:
    """Return the option that asks for GPUs of each node."""
    return {name: ",".join([*others, f"gpu:{type_}{count}"]) if name == "gres" else f"{type_}{count}"}


@few_or(5_000)
def test_there_are_never_fewer_ranks_than_gpus(number):
    @run_examples(number, some.booleans(), COUNTS, TYPES, OTHERS, NODES, TASKS, some.booleans())
    def check(of_job, count, type_, others, nodes, tasks, is_gres):
        name = "gpus" if of_job else "gres" if is_gres else "gpus-per-node"
        given = {"nodes": str(nodes), **per_node(name, count, type_, others), **tasks}
        num_gpus = count if of_job else count * nodes
        try:
            found = {**given, **gpus.tasks(given)}
        except UsageError:
            assert tasks
            return
        num_ranks = int(found["ntasks"]) if "ntasks" in found else int(found.get("ntasks-per-node", 0)) * nodes
        assert num_ranks >= num_gpus
        assert tasks or num_ranks == num_gpus


@few_or(5_000)
def test_no_text_is_too_odd(number):
    names = some.sampled_from(["gres", "gpus", "gpus-per-node", "gpus-per-task", "tres-per-task", "nodes", "ntasks"])
    texts = some.one_of(some.none(), some.text("gpu:=,/1a-0²", max_size=8), some.text(max_size=6))

    @run_examples(number, some.dictionaries(names, texts))
    def check(given):
        try:
            gpus.tasks(given)
        except UsageError as error:
            assert str(error).startswith("--")
