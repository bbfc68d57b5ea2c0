"""What is installed is one package, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_installs_exactly_one_top_level_name(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet"]
    copy = tmp_path / "source"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in files.stdout.splitlines():  # a copy: setuptools leaves its build folder in the sources
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "wheel"), str(copy)]
    subprocess.run([*pip, *build], check=True, timeout=120)
    wheel = next((tmp_path / "wheel").glob("*.whl"))
    target = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, timeout=120)
    names = {each.name for each in target.iterdir() if not each.name.endswith(".dist-info")} - {"bin"}
    assert names == {"ringtune"}
    done = subprocess.run(
        [sys.executable, "-c", "import ringtune.train.contract as c, ringtune.launch.cli; print(c.__file__)"],
        env={"PYTHONPATH": str(target)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(target))


def test_the_launcher_imports_neither_torch_nor_horovod():
    code = "import sys, ringtune.launch.cli, ringtune.launch.horovod\nprint({'torch', 'horovod'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_help_and_a_misspelt_flag_answer_without_torch():
    code = (
        "import sys\nfrom ringtune.train import config, contract\n"
        "try: config.parse(['--sed', '1'])\nexcept contract.UsageError as e: print(e)\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nearest is seed" in done.stdout and done.stdout.endswith("False\n")
