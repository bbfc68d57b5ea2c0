"""The rules of ringtune-launch tune: what is tried, what counts as faster, what is written and kept."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ringtune.launch import choices, search, steptimes, trial, tune, tuned
from ringtune.launch.choices import Choice, Space
from ringtune.launch.hosts import Host
from ringtune.launch.trial import Measured
from ringtune.train.contract import UsageError

SETTINGS = {
    "global_batch_size": 32,
    "mode": "fast",
    "num_shards": None,
    "gradient_accumulation_steps": None,
    "num_threads": None,
    "fp16_allreduce": False,
    "output_dir": "runs/mine",
}


def space(cores: int = 8, gpus: int = 0, num_proc: int | None = None, hosts=None, **settings) -> Space:
    hosts = hosts or (Host("localhost", num_proc or gpus or cores),)
    return Space(hosts, cores, gpus, {**SETTINGS, **settings}, num_proc)


def words(found: list[Choice]) -> list[str]:
    return [str(each) for each in found]


# What is tried


def test_the_cores_of_a_host_are_divided_among_ranks_in_every_power_of_two():
    assert words(choices.placements(space(6))) == [
        "6 ranks x 1 thread",
        "4 ranks x 1 thread",
        "2 ranks x 3 threads",
        "1 rank x 6 threads",
    ]
    assert [each.ranks for each in choices.placements(space(cores=64, gpus=4))] == [4, 2, 1]


def test_ranks_that_would_have_no_rows_or_uneven_shards_are_not_tried():
    assert [each.ranks for each in choices.placements(space(64, global_batch_size=8))] == [8, 4, 2, 1]
    assert [each.ranks for each in choices.placements(space(12, num_shards=6))] == [2, 1]
    assert choices.placements(space(12, mode="exact")) == [Choice(ranks, 1, None) for ranks in (8, 4, 2, 1)]


def test_what_the_user_has_fixed_is_left_as_it_is():
    fixed = space(8, num_proc=4, num_threads=2, gradient_accumulation_steps=2, fp16_allreduce=True)
    fixed = replace(fixed, fixed=frozenset({"fusion_mb", "cycle_ms"}))
    assert choices.placements(fixed) == [Choice(4, 2, 2)]
    assert [choices.variations(fixed, stage, Choice(4, 2, 2)) for _, stage in choices.STAGES] == [[]] * 4
    assert choices.wire(space(compression="acp"), Choice(2, 1, 1)) == []
    assert choices.wire(space(mode="exact"), Choice(2, 1, None)) == []


def test_one_rank_has_no_wire_to_tune():
    assert choices.variations(space(1), choices.wire, Choice(1, 1, 1)) == []
    assert len(choices.variations(space(2), choices.cycle, Choice(2, 1, 1))) == 2


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_the_rows_of_a_step_are_those_of_the_run_in_every_choice(ranks):
    hosts = (Host("a", 4), Host("b", 2))
    here = space(4, hosts=hosts)
    choice = Choice(ranks, 1, 1)
    assert here.total(choice) == min(ranks, 4) + min(ranks, 2)
    assert choice.train_settings(SETTINGS).keys() == {"num_threads", "gradient_accumulation_steps"}
    assert tune.hosts_flags(here, choice, False) == [
        "-np",
        str(here.total(choice)),
        "-H",
        f"a:{min(ranks, 4)},b:{min(ranks, 2)}",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("per_device_train_batch_size", 8),
        ("resume_from_checkpoint", "latest"),
        ("overwrite_output_dir", True),
        ("profile_steps", "1:2"),
    ],
)
def test_flags_that_change_the_mathematics_or_the_output_are_refused(name, value):
    with pytest.raises(UsageError, match=f"--{name}: {value}"):
        tune.refuse({**SETTINGS, name: value})
    tune.refuse(SETTINGS)


# What counts as faster


def times(median: float, spread: float = 0.0, seed: int = 0, steps: int = 12, launch: int = 0):
    draw = random.Random(seed)
    rows = [1 + 0.5 * (step % 3) for step in range(steps)]  # steps have different rows, the same in each choice
    return {(launch, step): median * rows[step] * (1 + spread * draw.uniform(-1, 1)) for step in range(steps)}


def test_the_interval_of_the_median_leaves_it_out_in_one_of_a_hundred_cases_at_most():
    draw = random.Random(1)
    wrong = 0
    for _ in range(4000):
        low, high = steptimes.median_interval([draw.lognormvariate(0, 1) for _ in range(12)])
        wrong += not low <= 1 <= high
    assert 0 < wrong <= 4000 * steptimes.DOUBT
    fewest = [1.0] * steptimes.LEAST_STEPS
    assert steptimes.median_interval(fewest) == (1.0, 1.0)
    assert steptimes.median_interval(fewest[1:]) == (float("-inf"), float("inf"))


def test_steps_are_compared_with_steps_of_the_same_rows():
    assert steptimes.is_faster(times(0.9, 0.02, 1), times(1.0, 0.02, 2))  # 10 % apart, while steps differ by 100 %
    assert steptimes.is_alike(times(0.99, 0.2, 1), times(1.0, 0.2, 2))
    assert not steptimes.is_faster(times(0.5, steps=7), times(1.0, steps=7))  # too few to say
    assert not steptimes.is_faster(times(0.99), times(1.0))  # beyond doubt, and not worth a change
    assert steptimes.is_alike(times(0.5, launch=0), times(1.0, launch=1))  # no step in common


# The search


class Machine:
    """Stands in for the launches: gives each choice the times or the failure that a rule says."""

    def __init__(self, monkeypatch, rule) -> None:
        self.rule, self.launched = rule, []
        monkeypatch.setattr(search, "measure", self.measure)

    def measure(self, program, found, hosts, folder, limit_s) -> None:
        self.launched.append(found.choice)
        answer = self.rule(found.choice)
        if isinstance(answer, str):
            found.failure = answer
        else:
            launch = max((number for number, _ in found.times), default=-1) + 1
            found.times |= times(answer, 0.02, len(self.launched), launch=launch)


def searched(here: Space, budget_s: float = 1e6) -> search.Search:
    program = trial.Program(("ringtune-train",), SETTINGS, (), 4, 12)
    found = search.Search(here, program, lambda choice: [], Path("/nowhere"), budget_s, lambda line: None)
    found.run()
    return found


def test_the_search_narrows_to_the_fastest_and_confirms_it(monkeypatch):
    def rule(choice: Choice) -> float:
        return 1.0 + abs(choice.ranks - 4) - 0.3 * (choice.cycle_ms == 5) + 0.2 * (choice.accumulation or 1)

    machine = Machine(monkeypatch, rule)
    found = searched(space(8))
    best = search.best_of(found.measured)
    assert best is not None and best.choice == Choice(4, 2, 1, cycle_ms=5.0)
    assert machine.launched.count(best.choice) == 2 and len(machine.launched) == 4 + 2 + 1 + 2 + 2 + 2


def test_of_what_cannot_be_distinguished_the_earlier_one_with_more_defaults_is_best(monkeypatch):
    Machine(monkeypatch, lambda choice: 1.0)
    best = search.best_of(searched(space(2)).measured)
    assert best is not None and best.choice == Choice(2, 1, 1)


def test_a_trial_that_fails_is_named_and_the_rest_goes_on(monkeypatch):
    Machine(monkeypatch, lambda choice: "rank 1 of 2: exit code 1: planted" if choice.fp16_allreduce else 1.0)
    found = searched(space(2))
    text = tuned.table(found.measured, 32)
    assert "2 ranks x 1 thread, fp16 on the wire: rank 1 of 2: exit code 1: planted" in text
    assert text.count("<- best") == 1 and "not distinguishable from the best" in text
    assert len(found.measured) == 9


def test_the_largest_shard_that_fits_comes_first_and_none_is_larger_after_it(monkeypatch):
    def rule(choice: Choice) -> float | str:
        rows = space(8, gpus=2).rows(choice)
        return 1.0 if rows <= 4 else "exit code 2: memory: step 1 does not fit on cuda:1"

    machine = Machine(monkeypatch, rule)
    here = space(8, gpus=2)
    found = searched(here)
    assert found.most_rows == 4
    assert [each.accumulation for each in machine.launched[:3]] == [1, 2, 4]
    assert all(here.rows(each) <= 4 for each in machine.launched[3:] if each.ranks == 1)


def test_the_budget_ends_the_search_and_what_it_left_out_is_counted(monkeypatch):
    machine = Machine(monkeypatch, lambda choice: 1.0)
    found = searched(space(8), budget_s=-1.0)
    assert len(machine.launched) == 1 and found.num_left_out == 3 + 2 + 1 + 2 + 2


# What is written and kept


def record(best: Choice) -> tuned.Record:
    measured = (Measured(best, times(1.0), peak_gib=1.5), Measured(replace(best, threads=9), failure="exit code 1: x"))
    return tuned.Record({"processor": "p", "gpus": []}, "2026-01-01 00:00", 60.0, 0, measured)


def test_a_record_is_read_as_it_was_kept_for_its_machine_alone(tmp_path):
    kept = record(Choice(2, 1, 1, cycle_ms=5.0))
    path = tuned.path_of(kept.machine, tmp_path)
    assert tuned.load(kept.machine, path) is None
    tuned.save(kept, path)
    assert tuned.load(kept.machine, path) == kept
    other = {**kept.machine, "processor": "q"}
    assert tuned.path_of(other, tmp_path) != path and tuned.load(other, path) is None
    path.write_text(path.read_text()[:-40])
    assert tuned.load(kept.machine, path) is None


def test_the_yaml_holds_the_settings_and_its_comments_how_to_launch():
    launch = ["ringtune-launch", "run", "-np", "2"]
    text = tuned.yaml_text(Choice(2, 3, 2, True, 32, 5.0), space(global_batch_size=12), launch, "why")
    assert yaml.safe_load(text) == {
        "global_batch_size": 12,
        "num_threads": 3,
        "gradient_accumulation_steps": 2,
        "fp16_allreduce": True,
    }
    both = Choice(2, 3, 2, True).train_settings({"compression"})
    assert (both["compression"], both["fp16_allreduce"]) == ("fp16", True)
    assert "HOROVOD_FUSION_THRESHOLD=33554432 HOROVOD_CYCLE_TIME=5.0" in text
    assert "ringtune-launch run -np 2 -- ringtune-train FLAGS --config" in text


def test_the_yaml_replaces_nothing_but_an_earlier_one(tmp_path):
    mine, ours = tmp_path / "mine.yaml", tmp_path / "tuned.yaml"
    mine.write_text("max_steps: 3\n")
    tuned.require_output(ours)
    ours.write_text(tuned.yaml_text(Choice(1, 8, 1), space(), ["ringtune-launch", "run"], "why"))
    tuned.require_output(ours)
    for path, reason in (
        (mine, "it exists; a new file, or one that tune wrote"),
        (tmp_path, "it is a folder"),
        (tmp_path / "nowhere" / "x.yaml", "its folder does not exist"),
        (Path("/dev/null"), "it exists"),
    ):
        with pytest.raises(UsageError, match=reason):
            tune.tune(SimpleNamespace(output=path, steps=99))  # before the command is even looked at
    assert mine.read_text() == "max_steps: 3\n"
