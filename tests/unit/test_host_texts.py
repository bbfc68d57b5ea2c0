"""Whatever stands in a hostfile, a list of nodes or a count of tasks: hosts that add up, or one line; at once."""

from __future__ import annotations

import itertools

from examples import few_or, run_examples
from hypothesis import strategies as some
from ringtune.launch.hosts import expand, parse_hostfile, parse_hosts
from ringtune.launch.ranks import assign
from ringtune.launch.slurm_job import expand_nodelist, expand_tasks, gpus_by_node, job_nodes
from ringtune.train.contract import UsageError

NUMBERS = some.integers(1, 5)
NAMES = some.sampled_from(["a", "b", "node07", "gpu-1.example", "10.0.0.1"])
#: How the lines of Open MPI, Horovod, Grid Engine and PBS give a host its slots; %s is the host, %d the slots.
FORMS = ["%s slots=%d", "%s:%d", "%s %d all.q@here <NULL>", "  %s   slots = %d   # comment", "%s slots=%d max_slots=99"]
LINES = some.tuples(NAMES, NUMBERS, some.sampled_from(FORMS))


@few_or(5_000)
def test_the_slots_of_a_hostfile_are_those_of_its_lines(number):
    @run_examples(number, some.lists(LINES, min_size=1, max_size=8), some.booleans(), some.sampled_from(["\n", "\r\n"]))
    def check(lines, blank, end):
        written = [form % (name, slots) for name, slots, form in lines]
        found = parse_hostfile(end.join([*(["# hosts", ""] if blank else []), *written]), "f")
        assert {host.name: host.slots for host in found} == {
            name: sum(slots for other, slots, _ in lines if other == name) for name, *_ in lines
        }
        assert [host.name for host in found] == list(dict.fromkeys(name for name, *_ in lines))


@few_or(5_000)
def test_a_rank_for_every_task_of_every_node(number):
    runs = some.lists(some.tuples(NUMBERS, some.integers(1, 40)), min_size=1, max_size=5)

    @run_examples(number, runs, some.booleans())
    def check(counts, is_of_step):
        tasks = ",".join(f"{tasks}(x{nodes})" if nodes > 1 else str(tasks) for tasks, nodes in counts)
        expected = list(itertools.chain.from_iterable([tasks] * nodes for tasks, nodes in counts))
        name = "SLURM_STEP_TASKS_PER_NODE" if is_of_step else "SLURM_TASKS_PER_NODE"
        found = job_nodes({"SLURM_JOB_NODELIST": f"n[0001-{len(expected):04}]", name: tasks})
        assert [host.slots for host in found.hosts] == expected
        slots = assign(found.hosts, sum(expected))
        assert [slot.rank for slot in slots] == list(range(sum(expected)))
        for slot in slots:
            same = [each for each in slots if each.local_rank == slot.local_rank]
            assert (slot.cross_rank, slot.cross_size) == (same.index(slot), len(same))


@few_or(5_000)
def test_a_list_of_nodes_names_each_once(number):
    parts = some.lists(some.tuples(some.sampled_from("abc"), some.integers(0, 30), NUMBERS), min_size=1, max_size=4)

    @run_examples(number, parts)
    def check(ranges):
        text = ",".join(f"{name}{row}[{first:03}-{first + row:03}]" for row, (name, first, _) in enumerate(ranges))
        expected = [
            f"{name}{row}{node:03}"
            for row, (name, first, _) in enumerate(ranges)
            for node in range(first, first + row + 1)
        ]
        assert expand_nodelist(text) == expected


@few_or(5_000)
def test_no_text_is_too_odd(number):
    odd = some.text("an[]0123-,: =#@%.(x)²\n\t", max_size=30)
    texts = some.one_of(odd, some.text(max_size=20), some.from_regex(r"\d{1,30}\(x\d{1,30}\)", fullmatch=True))

    @run_examples(number, texts)
    def check(text):
        for parse in (
            parse_hosts,
            gpus_by_node,
            expand_nodelist,
            lambda each: parse_hostfile(each, "f"),
            lambda each: expand(each, "f"),
            lambda each: expand_tasks(each, "f"),
            lambda each: job_nodes({"SLURM_JOB_NODELIST": each, "SLURM_TASKS_PER_NODE": each}),
        ):
            try:
                parse(text)
            except UsageError as error:
                assert str(error)
