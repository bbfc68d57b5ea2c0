"""``ringtune-launch tune`` over several hosts."""

from __future__ import annotations

import os

import pytest
import yaml
from cluster.desk import copied
from conftest import Workshop, rank_environment, script

pytestmark = pytest.mark.cluster
ENV = {**rank_environment(os.environ), "OMP_NUM_THREADS": "1"}


@pytest.mark.long
def test_the_ranks_of_several_hosts_are_tuned_together(make_cluster, workshop: Workshop, tmp_path):
    cluster = make_cluster("a", "b")
    files = ("--output", str(tmp_path / "tuned.yaml"), "--cache-dir", str(tmp_path / "cache"))
    options = ("-H", "a:1,b:1", "--steps", "8", "--warm-up", "2", "--budget", "120")
    flags = copied(workshop, tmp_path).arguments(tmp_path / "mine", num_threads=1, gradient_accumulation_steps=2)
    command = [script("ringtune-launch"), "tune", *options, *files, "--", script("ringtune-train"), *flags]
    done = cluster.run("a", command, env=ENV, limit_s=600)
    assert done.returncode == 0, done.output
    assert "2 hosts: ranks and threads are those of each" in done.output
    assert "1 rank x 1 thread, 2 shards a rank, fp16 on the wire: " in done.output  # the two ranks have a wire
    assert "ringtune-launch run -np 2 -H a:1,b:1" in done.output
    assert "on 2 host(s)" in (tmp_path / "tuned.yaml").read_text()
    assert yaml.safe_load((tmp_path / "tuned.yaml").read_text())["gradient_accumulation_steps"] == 2
    assert sorted(each.name for each in tmp_path.glob(".ringtune-*")) == []
