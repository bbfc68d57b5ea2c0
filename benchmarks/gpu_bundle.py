"""Put all that a GPU machine without a network needs into one folder: ``make gpu-bundle``.

The machine has torch for CUDA, nvcc and cmake, but no package index. The folder gets the sources, the wheels that are
likely to be missing there, Horovod's source archive, and ``gpu.sh``, which does the rest; the model
is drawn on the spot. Nothing in it is committed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from ringtune.launch.build import PIN
from ringtune.launch.packages import download

ROOT = Path(__file__).parents[1]
MOST_BYTES = 60 << 20
SOURCES = ("setup.py", "pyproject.toml", "constraints.txt", "train", "launch", "slurm", "tests", "benchmarks")
PACKAGES = Path(__file__).with_suffix(".txt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "gpu-bundle")
    parser.add_argument("--python", default="3.12", help="version of the target's Python (default: 3.12)")
    parser.add_argument(
        "--bring", nargs="*", default=[], metavar="NAME", help="more packages, transformers for example"
    )
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="NAME", help="packages that the target has")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    copy_sources(options.folder / "sources")
    listed = [each for each in PACKAGES.read_text().splitlines() if not each.startswith("#")]
    names = [each for each in [*listed, *options.bring] if each not in options.leave_out]
    fetch_wheels(options.folder / "wheels", names, options.python)
    archive = download(PIN, options.folder / "horovod", source=True)
    shutil.copy(ROOT / "benchmarks" / "gpu.sh", options.folder)
    size = sum(each.stat().st_size for each in options.folder.rglob("*") if each.is_file())
    print(
        f"{options.folder}: {size / (1 << 20):.1f} MiB, {len(names)} wheels for Python {options.python}, {archive.name}"
    )
    print(f"on the machine with the GPU: {options.folder.name}/gpu.sh OUTPUT_FOLDER")
    if size > MOST_BYTES:
        sys.exit(f"that is more than {MOST_BYTES >> 20} MiB")


def copy_sources(folder: Path) -> None:
    """Copy the files that git knows or would add, so that what is not committed yet comes along."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", *SOURCES]
    for name in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).exists():  # not one that was deleted and not committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def fetch_wheels(folder: Path, names: list[str], python: str) -> None:
    """Download the wheel of each package for the target's Python, without what it depends on."""
    folder.mkdir(parents=True)
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("torch==")]
    constraints = folder.parent / "constraints.txt"
    constraints.write_text("\n".join(pins))
    platforms = [word for glibc in (28, 17, 27, 24, 5) for word in ("--platform", f"manylinux_2_{glibc}_x86_64")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", python, *platforms, "--platform", "manylinux2014_x86_64"]
    command += ["-c", str(constraints), "-d", str(folder), *names]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
