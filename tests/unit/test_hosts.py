"""Hosts, slots and ranks: what users write, and who runs where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ringtune.launch import allocation, cli, slurm_job
from ringtune.launch.hosts import Host, parse_hostfile, parse_hosts, read_hostfile
from ringtune.launch.ranks import assign, used_hosts
from ringtune.train.contract import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:2,b:2", [("a", 2), ("b", 2)]),
        ("a", [("a", 1)]),
        (" a:1 , b ", [("a", 1), ("b", 1)]),
        ("n[01-03]:4", [("n01", 4), ("n02", 4), ("n03", 4)]),
        ("n[9-11,20]:1,x", [("n9", 1), ("n10", 1), ("n11", 1), ("n20", 1), ("x", 1)]),
        ("r[1-2]n[1-2]", [("r1n1", 1), ("r1n2", 1), ("r2n1", 1), ("r2n2", 1)]),
        ("10.0.0.1:3", [("10.0.0.1", 3)]),
        ("[fe80::1%eth0]:2,::1", [("fe80::1%eth0", 2), ("::1", 1)]),
        ("gpu_01.rack-2.example:2", [("gpu_01.rack-2.example", 2)]),
    ],
)
def test_hosts_are_read_as_people_write_them(text, expected):
    assert parse_hosts(text) == [Host(*each) for each in expected]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no host name"),
        ("a:2,,b", "no host name"),
        ("a:2,a:2", "named twice"),
        ("n[1-2],n2:3", "named twice"),
        ("a:0", "no number of slots"),
        ("a:-1", "no number of slots"),
        ("a:two", "no number of slots"),
        ("a:2:3", "no number of slots"),
        ("a:", "no number of slots"),
        ("n[3-1]", "counts backwards"),
        ("n[1-999999999]", "too far"),
        ("n[1-999][1-999]:4", "stands for 998001 hosts; at most 100000"),
        ("n[1-", "does not close"),
        ("n[a-b]", "no range"),
        ("me@a:2", "ssh's configuration"),
        ("a b", "no host name"),
        ("-oProxyCommand=x", "no host name"),
        ("[zz::1]:2", "no IPv6 address"),
    ],
)
def test_nonsense_hosts_are_refused(text, word):
    with pytest.raises(UsageError, match=r"-H: .*") as caught:
        parse_hosts(text)
    assert word in str(caught.value)


def test_hostfiles_of_open_mpi_and_horovod_are_read():
    text = "# cluster\n\na slots=2 max_slots=4\nb:3   # the fast one\nc\nd slots = 2\nn[1-2] slots=1\n"
    assert parse_hostfile(text, "f") == [
        Host(*each) for each in [("a", 2), ("b", 3), ("c", 1), ("d", 2), ("n1", 1), ("n2", 1)]
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a slots=2\nb slots=x\n", "f:2: 'x' in 'slots=x' is no number of slots"),
        ("a slots=2\na.example slots=2\n", "f: a and a.example look like two names of one machine"),
        ("a 0 all.q@a\n", "f:1: '0' in '0' is no number of slots"),
        ("a 2 all.q\n", "f:1: 'all.q' is not understood"),
        ("a slots=4 max_slots=2\n", "f:1: slots=4 is more than max_slots=2"),
        ("a cpus=4\n", "f:1: 'cpus=4' is not understood"),
        ("# nothing\n", "f: it names no host"),
    ],
)
def test_a_bad_hostfile_is_refused_with_its_line(text, words):
    with pytest.raises(UsageError) as caught:
        parse_hostfile(text, "f")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1\nn1\nn2\nn1\n", [("n1", 3), ("n2", 1)]),  # PBS, Torque, OAR, LSF
        ("n1.example 4 all.q@n1.example UNDEFINED\nn2 2 all.q@n2 <NULL>\n", [("n1.example", 4), ("n2", 2)]),
        ("n1 4\nn1 4 b.q@n1 0,0:1,0\n", [("n1", 8)]),
        ("\ufeffn1 slots=2\r\nn2 slots=2\r\n", [("n1", 2), ("n2", 2)]),  # as Windows' editors write it
        ("n1 slots=2\nn1 slots=1\n", [("n1", 3)]),
    ],
)
def test_hostfiles_of_batch_systems_are_read(text, expected, tmp_path):
    path = tmp_path / "hosts"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_hostfile(path) == [Host(*each) for each in expected]


def test_a_batch_systems_hostfile_is_found_and_two_are_refused(tmp_path):
    path, other = tmp_path / "nodes", tmp_path / "others"
    path.write_text("n1\nn1\nn2\n")
    for name in allocation.HOSTFILE_VARIABLES:
        found = allocation.find(None, None, None, {name: str(path)})
        assert found.hosts == (Host("n1", 2), Host("n2", 1)) and found.source == f"{name} {path}"
        assert allocation.is_of_a_batch_system({name: str(path)})
    assert allocation.find("a:2", None, None, {"PBS_NODEFILE": str(path)}).hosts == (Host("a", 2),)
    both = {"PBS_NODEFILE": str(path), "OAR_NODEFILE": str(path)}
    assert allocation.find(None, None, None, both).num_slots == 3
    with pytest.raises(UsageError, match="PBS_NODEFILE OAR_NODEFILE: they name different files: .*--hostfile"):
        allocation.find(None, None, None, {**both, "OAR_NODEFILE": str(other)})
    with pytest.raises(UsageError, match="No such file"):
        allocation.find(None, None, None, {"PBS_NODEFILE": str(other)})
    assert not allocation.is_of_a_batch_system({})


def test_a_hostfile_that_is_not_there_or_no_text_is_an_error_not_a_traceback(tmp_path: Path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, words in (("absent", "No such file"), ("binary", "not text")):
        with pytest.raises(UsageError, match=words):
            allocation.find(None, tmp_path / name, None, {})


def test_ragged_hosts_give_horovods_own_ranks():
    slots = assign([Host("a", 2), Host("b", 1)], 3)
    assert [(s.host, s.rank, s.local_rank, s.local_size, s.cross_rank, s.cross_size) for s in slots] == [
        ("a", 0, 0, 2, 0, 2),
        ("a", 1, 1, 2, 0, 1),
        ("b", 2, 0, 1, 1, 2),
    ]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_ranks_are_those_of_horovods_host_assignment(counts, data):
    from horovod.runner.common.util.hosts import HostInfo, get_host_assignments

    num_proc = data.draw(st.integers(1, sum(counts)))
    theirs = get_host_assignments([HostInfo(f"h{i}", count) for i, count in enumerate(counts)], num_proc, num_proc)
    ours = assign([Host(f"h{i}", count) for i, count in enumerate(counts)], num_proc)
    fields = ("rank", "size", "local_rank", "local_size", "cross_rank", "cross_size")
    assert [[getattr(each, name) for name in fields] for each in ours] == [
        [getattr(each, name) for name in fields] for each in theirs
    ]
    assert sum(host.slots for host in used_hosts(ours)) == num_proc


def test_more_ranks_than_slots_is_refused_with_the_numbers():
    with pytest.raises(UsageError, match=r"-np: 4 processes do not fit into 3 slots \(a:2,b:1\); at most 3"):
        assign([Host("a", 2), Host("b", 1)], 4)
    with pytest.raises(UsageError, match="-np: 0 starts nothing"):
        assign([Host("a", 2)], 0)


def test_hosts_come_from_the_flag_then_the_file_then_slurm_then_this_machine(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("f:2\n")
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "2,1"}
    assert allocation.find("a:1", None, 2, slurm).source == "-H"
    assert allocation.find(None, file, 2, slurm).hosts == (Host("f", 2),)
    found = allocation.find(None, None, None, slurm)
    assert (found.hosts, found.source, found.in_slurm) == ((Host("n1", 2), Host("n2", 1)), "SLURM job 7", True)
    assert allocation.find(None, None, 3, {}).hosts == (Host("localhost", 3),)
    with pytest.raises(UsageError, match="the number of ranks is not given"):
        allocation.find(None, None, None, {})
    with pytest.raises(UsageError, match="both are given"):
        allocation.find("a", file, None, {})


def test_slurms_tasks_per_node_are_expanded_and_checked():
    assert slurm_job.expand_tasks("2(x3),1", "T") == [2, 2, 2, 1]
    assert slurm_job.expand_nodelist("n[01-02],gpu-a,r[1,3]x") == ["n01", "n02", "gpu-a", "r1x", "r3x"]
    with pytest.raises(UsageError, match="T: '2x3' in '2x3' is not understood"):
        slurm_job.expand_tasks("2x3", "T")
    with pytest.raises(UsageError, match="SLURM_JOB_NODELIST: '' names a node without a name"):
        slurm_job.job_nodes({"SLURM_JOB_NODELIST": ""})
    with pytest.raises(UsageError, match="counts 1 nodes, the job has 2"):
        slurm_job.job_nodes({"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "2"})


def test_without_tasks_a_job_of_slurm_has_a_rank_for_each_gpu_or_node_and_says_so():
    """A whole node counts a task for every CPU, unless tasks are asked for."""
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_TASKS_PER_NODE": "64(x3)",
        "SLURM_JOB_CPUS_PER_NODE": "64(x3)",
    }
    found = slurm_job.job_nodes(job, lambda job_id: "     Nodes=n[1-3] CPU_IDs=0-63 Mem=0 GRES=\n")
    assert [each.slots for each in found.hosts] == [1, 1, 1]
    assert found.how == "a rank for each node; --ntasks-per-node or --ranks-per-node sets more"
    for asked in slurm_job.TASK_REQUESTS:
        assert allocation.find(None, None, None, {**job, asked: "64"}).num_slots == 192
        assert allocation.find(None, None, None, {**job, asked: "64"}, ranks_per_node=8).num_slots == 24

    def details(job_id: str) -> str:
        assert job_id == "7"
        return (
            "JobId=7\n   TresPerNode=gres:gpu:9\n"
            "     Nodes=n[1-2] CPU_IDs=0-63 Mem=0 GRES=gpu:a100:4(IDX:0-3)\n"
            "     Nodes=n3 CPU_IDs=0-63 Mem=0 GRES=gpu:2(IDX:0-1),gpu:v100:1(IDX:2),nic:1(CNT:1)\n"
        )

    found = slurm_job.job_nodes(job, details)
    assert ([each.slots for each in found.hosts], found.how) == ([4, 4, 3], "a rank for each GPU")
    assert found.unasked_gpus == {}


def test_a_step_asks_for_the_gpus_that_came_with_whole_nodes():
    """srun gives a step what the job asked for, and nothing of what it got besides."""
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "64(x2)"}
    job["SLURM_JOB_CPUS_PER_NODE"] = "64(x2)"
    even = "JOB_GRES=gpu:8\n     Nodes=n[1-2] CPU_IDs=0-63 Mem=0 GRES=gpu:a100:4(IDX:0-3)\n"
    found = slurm_job.job_nodes(job, lambda job_id: even)
    assert (slurm_job.step_gres(found, ["n1", "n2"]), [each.slots for each in found.hosts]) == ("gpu:4", [4, 4])
    for more, gres in (("TresPerTask=cpu=8", "gpu:4"), ("TresPerNode=gres/lscratch:200", "lscratch:200,gpu:4")):
        found = slurm_job.job_nodes(job, lambda job_id, more=more: f"{even}   {more}\n")
        assert slurm_job.step_gres(found, ["n1", "n2"]) == gres
    uneven = even.replace("n[1-2]", "n1") + "     Nodes=n2 CPU_IDs=0-63 Mem=0 GRES=gpu:2(IDX:0-1)\n"
    found = slurm_job.job_nodes(job, lambda job_id: uneven)
    with pytest.raises(UsageError, match="its nodes have 2 and 4 GPUs, which came with the nodes"):
        slurm_job.step_gres(found, ["n1", "n2"])
    assert slurm_job.step_gres(found, ["n2"]) == "gpu:2"
    for asked in ("TresPerJob=gres:gpu:6", "TresPerNode=gres/gpu:a100:2,gres/lscratch:1"):
        assert not slurm_job.job_nodes(job, lambda job_id, asked=asked: f"{uneven}   {asked}\n").unasked_gpus


def fake(folder, monkeypatch, name, script):
    """Put a command that is not SLURM's before all others."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_controller_that_is_away_or_busy_is_asked_again(tmp_path, monkeypatch, capsys):
    """By a stand-in for scontrol, since a controller cannot be made busy at will."""
    monkeypatch.setattr(slurm_job.time, "sleep", lambda seconds: None)
    words = f"cd {tmp_path}; echo x >> asked; if [ $(wc -l < asked) -ge 3 ]; then echo JobId=7; exit; fi"
    words += "; echo $WORDS >&2; exit 1"
    fake(tmp_path, monkeypatch, "scontrol", words)
    for away in ("Unable to contact slurm controller", "Socket timed out on send/recv operation"):
        monkeypatch.setenv("WORDS", away)
        (tmp_path / "asked").unlink(missing_ok=True)
        assert slurm_job.show("7") == "JobId=7\n"
        assert capsys.readouterr().err.count("SLURM does not answer; asking again for 300 s") == 2
    monkeypatch.setenv("WORDS", "Invalid job id specified")
    (tmp_path / "asked").unlink()
    with pytest.raises(UsageError, match="which nodes have its GPUs is not known: Invalid job id"):
        slurm_job.show("7")
    assert len((tmp_path / "asked").read_text()) == 2


def test_a_job_of_several_components_is_refused_by_name():
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST_HET_GROUP_0": "n1", "SLURM_HET_SIZE": "2"}
    with pytest.raises(UsageError, match="SLURM job 7: it is heterogeneous, of 2 components"):
        allocation.find(None, None, None, job)


def test_ranks_per_node_replace_what_a_hostfile_says_and_nothing_that_the_user_says(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("f\nf\ng\n")
    assert allocation.find(None, file, None, {}, ranks_per_node=3).hosts == (Host("f", 3), Host("g", 3))
    for hosts, num_proc in (("a:2", None), (None, 2)):
        with pytest.raises(UsageError, match="--ranks-per-node: the hosts are those of"):
            allocation.find(hosts, None, num_proc, {}, ranks_per_node=3)


@pytest.mark.parametrize(
    ("words", "hosts", "command"),
    [
        ("-H a:2 b:2 c:1 -- prog -x", "a:2,b:2,c:1", ("prog", "-x")),
        ("-H a:2 -- prog -- b:2", "a:2", ("prog", "--", "b:2")),
        ("-H a:2 prog b:2", "a:2", ("prog", "b:2")),
        ("-H a:2 prog -- b:2", "a:2", ("prog", "--", "b:2")),
        ("-H a:2 ./x:1", "a:2", ("./x:1",)),
        ("-np 2 x:1", None, ("x:1",)),
    ],
)
def test_hosts_with_spaces_between_are_hosts_and_a_command_stays_as_it_is(words, hosts, command):
    options = cli._parser().parse_args(["run", *words.split()])
    assert cli._command(options) == command and options.hosts == hosts


@pytest.mark.parametrize("words", ["-H a:2 b:2 prog", "-H a:2 b:2 prog -- x", "-H a:2 b:2"])
def test_a_word_that_is_a_host_or_the_program_is_refused(words):
    with pytest.raises(UsageError, match="-H: 'b:2' is another host, or the program; -H a:2,b:2 -- COMMAND"):
        cli._command(cli._parser().parse_args(["run", *words.split()]))
