"""``ringtune-launch run`` on one machine, as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import FAULTS, Workshop, rank_environment, run_command, script

pytestmark = pytest.mark.system
PROGRAMS = Path(__file__).parents[1] / "cluster" / "programs"


def launch(*words: object, env: dict[str, str] | None = None):
    return run_command([script("ringtune-launch"), "run", *map(str, words)], env=env)


def started(num_ranks: int, code: str) -> subprocess.Popen[str]:
    """Start ranks of a program and return the launcher while it runs, each of its streams by itself."""
    command = [script("ringtune-launch"), "run", "-np", str(num_ranks), "--", "python", "-c", code]
    env = rank_environment(os.environ)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def test_large_messages_go_by_ring_and_small_ones_as_open_mpi_likes():
    """In a ring each block of the sum has another rank added last; otherwise the whole sum has one."""
    ring = launch("-np", 3, "--", "python", PROGRAMS / "order.py").output
    assert all(f"last added ['{rank}']" in ring for rank in range(3)), ring
    plain = launch("-np", 3, "--no-ring", "--", "python", PROGRAMS / "order.py").output
    assert sum(f"last added ['{rank}']" in plain for rank in range(3)) == 1, plain


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_ranks_on_this_machine_get_cores_of_their_own_their_rank_and_the_whole_environment(launcher):
    code = (
        "import os; e = os.environ; print(sorted(os.sched_getaffinity(0)), e['OMP_NUM_THREADS'], e['RANK'],"
        " e['WORLD_SIZE'], e['LOCAL_RANK'], e['MASTER_ADDR'], sorted({*e['NAMES'].split()} & {*e}), e['http_proxy'])"
    )
    # A tracker, a proxy, certificates, a cache, what a module system sets, a secret, a choice of GPUs.
    env = {
        "WANDB_PROJECT": "reviews",
        "WANDB_API_KEY": "s3cret",
        "http_proxy": "http://user:s3cret@proxy:1 &;",
        "SSL_CERT_FILE": "/certificates",
        "XDG_CACHE_HOME": "/scratch",
        "LOADEDMODULES": "cuda/13",
        "BASH_FUNC_module%%": "() {  true\n}",
        "HF_TOKEN": "s3cret",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    words = ("-np", 2, "--launcher", launcher, "--", "python", "-c", code)
    done = launch(*words, env={**env, "NAMES": " ".join(env)})
    lines = sorted(line for line in done.output.splitlines() if line.startswith("["))
    cores = [line.split("] ")[1] for line in lines]
    assert cores[0] != cores[1] or len(os.sched_getaffinity(0)) < 2, done.output
    for rank, line in enumerate(lines):
        assert line.endswith(f"{rank} 2 {rank} 127.0.0.1 {sorted(env)} {env['http_proxy']}"), done.output
    assert "s3cret" not in launch("--dry-run", *words, env=env).output


@pytest.mark.parametrize(
    ("folder", "why"),
    [("/no/such/folder", "No such file or directory"), ("/dev/null", "Not a directory"), ("/proc", "No such file")],
)
def test_a_tmpdir_in_which_mpi_cannot_start_is_named_before_it(folder, why):
    done = launch("-np", 2, "--", "true", env={"TMPDIR": folder})
    assert done.returncode == 2 and f"localhost: TMPDIR={folder}: {why}" in done.output, done.output


def test_a_stop_on_request_of_the_worker_keeps_its_exit_code(workshop: Workshop, tmp_path):
    arguments = workshop.arguments(tmp_path / "run")
    done = launch("-np", 2, "--", "python", FAULTS, "stop", "5", "1", "--", *arguments)
    assert done.returncode == 75 and "stopped on request after step 6 of 12" in done.output, done.output
    assert "ringtune-launch: rank" not in done.output


def test_a_traceback_that_a_rank_survives_is_heard_at_once_and_each_line_on_its_own_stream(tmp_path):
    code = (
        "import sys, time, traceback\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: traceback.print_exc()\n"
        "print('on stdout', flush=True)\n"
        "time.sleep(60)"
    )
    process = started(1, code)
    heard = [process.stderr.readline()]
    while not heard[-1].startswith("[0] ZeroDivisionError"):
        assert heard[-1], "the output has ended, and the rank should sleep"
        heard.append(process.stderr.readline())
    assert process.stdout.readline() == "[0] on stdout\n"
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=30)
    assert (process.returncode, rest[0]) == (130, "") and "stopped by SIGINT" in rest[1], rest
    assert "KeyboardInterrupt" not in rest[1] and "ZeroDivisionError" not in rest[1]


def test_the_last_lines_of_a_rank_that_is_stopped_are_shown():
    code = (
        "import signal, time, traceback\n"
        "def stop(*_):\n"
        "    try: open('/no/such/checkpoint')\n"
        "    except OSError: traceback.print_exc()\n"
        "    print('not saved', flush=True)\n"
        "    raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    process = started(2, code)
    assert sorted(process.stdout.readline() for _ in range(2)) == ["[0] ready\n", "[1] ready\n"]
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143 and sorted(out.splitlines()) == ["[0] not saved", "[1] not saved"], (out, err)
    for rank in range(2):
        assert f"[{rank}] FileNotFoundError: [Errno 2] No such file or directory: '/no/such/checkpoint'" in err


def test_what_ends_a_rank_is_blamed_and_not_a_traceback_it_has_survived(tmp_path):
    code = (
        "import sys, time, traceback\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: traceback.print_exc()\n"
        "time.sleep(10)\n"
        "sys.exit('no space left for the results')"
    )
    done = launch("-np", 1, "--output-dir", tmp_path / "logs", "--", "python", "-c", code)
    assert done.returncode == 1 and done.output.count("ZeroDivisionError") == 1, done.output
    verdict = json.loads((tmp_path / "logs" / "verdict.json").read_text())
    assert (verdict["last_line"], verdict["words"]) == ("no space left for the results", [])


def test_a_failing_worker_is_reported_once_at_the_end(workshop: Workshop, tmp_path):
    logs = ("--output-dir", tmp_path / "logs")
    done = launch(
        "-np", 3, *logs, "--", "python", FAULTS, "raise", "4", "1", "--", *workshop.arguments(tmp_path / "run")
    )
    assert done.returncode == 1, done.output
    verdict = json.loads((tmp_path / "logs" / "verdict.json").read_text())
    assert (verdict["exit_code"], verdict["last_line"]) == (1, "RuntimeError: planted failure")
    assert done.output.count("RuntimeError: planted failure") == 1
    assert "ringtune-launch: rank 1 of 3 (host localhost): exit code 1" in done.output


def test_a_usage_error_of_the_worker_is_reported_once_with_its_code(workshop: Workshop, tmp_path):
    done = launch("-np", 2, "--", "ringtune-train", *workshop.arguments(tmp_path / "run", learing_rate=1))
    assert done.returncode == 2 and done.output.count("nearest is learning_rate") == 1, done.output


def test_logs_that_cannot_be_kept_are_reported_before_anything_starts(tmp_path):
    (tmp_path / "file").write_text("mine")
    done = launch("-np", 2, "--output-dir", tmp_path / "file", "--", "echo", "started")
    assert done.returncode == 2 and "Traceback" not in done.output, done.output
    assert f"ringtune-launch: --output-dir {tmp_path / 'file'}: File exists" in done.output
    assert "started" not in done.output and (tmp_path / "file").read_text() == "mine"


def test_the_doctor_names_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_command([script("ringtune-launch"), "doctor", "--folder", str(tmp_path / "file")])
    assert done.returncode == 1 and "Traceback" not in done.output, done.output
    assert "it is not a folder" in done.output


def test_completion_is_printed():
    assert "ringtune-launch" in run_command([script("ringtune-launch"), "completion", "bash"]).output


def test_that_a_rank_failed_because_of_another_is_not_printed():
    """It prints a traceback of Horovod's and hangs, and is ended since rank 0 has failed."""
    code = (
        "import os, sys, time\n"
        "if os.environ['RANK'] == '0': sys.exit('out of luck')\n"
        "print('Traceback (most recent call last):\\nHorovodInternalError: it ended', file=sys.stderr, flush=True)\n"
        "time.sleep(60)"
    )
    done = launch("-np", 2, "--", "python", "-c", code)
    assert done.returncode == 1 and "out of luck" in done.output, done.output
    assert "HorovodInternalError" not in done.output, done.output
