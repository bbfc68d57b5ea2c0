"""The placement of the ranks, and which rank is blamed for the end of a job."""

from __future__ import annotations

import pytest
from ringtune.launch import rank
from ringtune.launch.blame import Ending, Verdict, judge, missing_ranks
from ringtune.launch.hosts import Host
from ringtune.launch.plan import LaunchPlan
from ringtune.launch.rank_state import mismatches
from ringtune.launch.ranks import assign
from ringtune.train.contract import UsageError

PLAN = LaunchPlan(
    slots=tuple(assign([Host("a", 2), Host("b", 1)], 3)),
    source="-H",
    launcher="mpirun",
    controller="mpi",
    command=("true",),
    environment={},
    is_local=False,
)


def test_a_rank_reads_its_placement_from_any_launchers_variables():
    assert rank.placement(
        {
            "OMPI_COMM_WORLD_RANK": "2",
            "OMPI_COMM_WORLD_SIZE": "3",
            "OMPI_COMM_WORLD_LOCAL_RANK": "0",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
        }
    ) == rank.RankPlacement(2, 3, 0, 1)
    assert rank.placement(
        {
            "SLURM_PROCID": "2",
            "SLURM_STEP_NUM_TASKS": "3",
            "SLURM_LOCALID": "0",
            "SLURM_NODEID": "1",
            "SLURM_STEP_TASKS_PER_NODE": "2,1",
        }
    ) == rank.RankPlacement(2, 3, 0, 1)
    with pytest.raises(UsageError, match="no launcher gave this process a rank"):
        rank.placement({})


def hello(host, **changes):
    def of(slot):
        place = {"rank": slot.rank, "size": slot.size, "local_rank": slot.local_rank, "local_size": slot.local_size}
        return {"host": host.get(slot.host, slot.host), "hello": {**place, **changes}}

    return of


def test_a_placement_that_was_not_promised_is_named():
    good = [hello({"a": "node-1", "b": "node-2"})(slot) for slot in PLAN.slots]
    assert mismatches(PLAN, good) == []
    assert (
        "has local rank 0 of 2, promised 1 of 2"
        in mismatches(PLAN, [hello({}, local_rank=0)(slot) for slot in PLAN.slots])[0]
    )
    assert "really x, x" in mismatches(PLAN, [hello({"a": "x", "b": "x"})(slot) for slot in PLAN.slots])[0]
    assert "sees 1 ranks, promised 3" in mismatches(PLAN, [hello({}, size=1)(slot) for slot in PLAN.slots])[0]


def endings(*facts):
    return [Ending(slot, **each) for slot, each in zip(PLAN.slots, facts, strict=True)]


def test_the_first_rank_that_failed_by_itself_is_blamed():
    consequence = {
        "exit_code": 1,
        "ended_at": 1.0,
        "failed_at": 1.0,
        "stderr_lines": ["HorovodInternalError: Horovod has been shut down"],
    }
    raised = {"exit_code": 1, "ended_at": 3.0, "failed_at": 2.0, "stderr_lines": ["Traceback", "RuntimeError: x"]}
    verdict = judge(endings(consequence, raised, {"exit_code": -15, "ended_at": 5.0, "was_terminated": True}))
    assert (verdict.exit_code, verdict.headline, verdict.num_consequences) == (
        1,
        "rank 1 of 3 (host a): exit code 1",
        1,
    )
    verdict = judge(endings(consequence, consequence, {"exit_code": -9, "ended_at": 4.0}))
    assert (verdict.exit_code, verdict.headline) == (137, "rank 2 of 3 (host b): killed by SIGKILL")
    verdict = judge(endings({"exit_code": 0}, consequence, {"lost": "its host is down", "ended_at": 0.5}))
    assert (verdict.exit_code, verdict.headline) == (1, "rank 2 of 3 (host b): its host is down")
    assert verdict.lost_hosts == ("b",)
    assert (
        judge(endings({"exit_code": 0}, {"lost": "its host is down", "ended_at": 0.5}, {"exit_code": 0})).lost_hosts
        == ()
    )
    assert judge(endings({"exit_code": 0}, {"exit_code": 0}, {"exit_code": 0})).exit_code == 0
    assert judge(endings({"exit_code": 75}, {"exit_code": 75}, {"exit_code": 0})).exit_code == 75
    assert judge(endings(*[{"exit_code": 76}] * 3)) == Verdict(76, "")


def test_a_rank_that_others_wait_for_is_blamed_though_it_never_failed():
    lines = ["Missing ranks:", "2: [allreduce.x, allreduce.y ...]", "Missing ranks:", "1!: [allreduce.x]"]
    assert missing_ranks(lines) == [(1, "allreduce.x")]
    consequence = {
        "exit_code": 1,
        "ended_at": 1.0,
        "stderr_lines": ["HorovodInternalError: Horovod has been shut down"],
    }
    verdict = judge(endings(consequence, {"exit_code": -15, "was_terminated": True}, consequence), lines)
    assert verdict.headline == "rank 1 of 3 (host a): hung: the other ranks wait for it in 'allreduce.x'"
