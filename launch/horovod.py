"""Provide a Horovod that works with the torch, MPI and CUDA of this environment: build, cache, install, verify."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

from ringtune.launch import commands, corrections, cuda, toolchain, wheels
from ringtune.launch.build import PIN, VERSION, build
from ringtune.launch.target import Target, find_target
from ringtune.launch.toolchain import Toolchain, find_toolchain, require_space
from ringtune.launch.verify import verify
from ringtune.launch.wheels import Built
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, UsageError, cache_folder

MARKER = "ringtune-key"  # file in the installed package's metadata: the key of the wheel that is installed


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    cache_dir: Path | None = None
    dry_run: bool = False
    force: bool = False  # build even if the cache has the wheel
    jobs: int | None = None  # compilers at once
    verify: bool = True
    cpu_only: bool = False
    capabilities: tuple[int, ...] = ()  # of the GPUs to build for; () for those that are found


@dataclass(frozen=True)
class Plan:
    """What is to be done: install a wheel of the cache, or build one."""

    target: Target
    tools: Toolchain | None  # None: this machine cannot build, for the reason given
    built: Built | None
    remarks: tuple[str, ...]  # what was chosen for the user, and why


def provide(request: Request) -> int:
    """Make ``import horovod.torch`` work here and return the exit code.

    Survives a crash at any point: the wheel enters the cache by one rename, under a lock. Raises UsageError for
    whatever is missing, before anything is built.
    """
    cache = cache_folder(request.cache_dir) / "horovod"
    require_space(cache)
    plan = make_plan(request, cache)
    for each in plan.remarks:
        print(each)
    if request.dry_run:
        return _show(plan, cache)
    built = plan.built
    if built is None:
        assert plan.tools is not None
        key = wheels.key(recipe(), plan.target, plan.tools)
        with wheels.lock(cache / f"{key}.lock"):
            built = None if request.force else wheels.find_built(cache, recipe(), plan.target, plan.tools)
            if built is None and not build(recipe(), plan.target, plan.tools, cache / key, request.jobs):
                return EXIT_FAILED
        built = built or wheels.find_built(cache, recipe(), plan.target, plan.tools)
        assert built is not None
    elif _installed_key() == built.key:
        print(f"Horovod {VERSION} for {describe(plan.target)} is installed already ({built.key})")
    if _installed_key() != built.key or request.force:
        _install(built)
    if not request.verify:
        return EXIT_FINISHED
    return EXIT_FINISHED if verify(plan.target) else EXIT_FAILED


def recipe() -> str:
    """Return the pinned release and its corrections as text, which is part of the wheel's cache key. **Pure.**"""
    return json.dumps([PIN, [asdict(each) for each in corrections.CORRECTIONS]])


def describe(target: Target) -> str:
    """Return a target in a few words. **Pure.**"""
    gpus = f"CUDA {target.cuda} (GPUs {','.join(map(str, target.capabilities))}), NCCL {target.nccl}"
    return f"torch {target.torch}, {target.mpi}, {gpus if target.cuda else 'CPUs only'}"


def make_plan(request: Request, cache: Path) -> Plan:
    """Return what is to be done. Raises UsageError naming what is missing.

    A machine without compilers can use a wheel that another one built; one without GPUs and nvcc gets a Horovod for
    CPUs, even if torch knows CUDA; one with a GPU gets nvcc from the package index.
    """
    target = find_target(cpu_only=request.cpu_only, capabilities=request.capabilities)
    plan = _plan_for(target, request, cache)
    if plan:
        return plan
    if request.capabilities or cuda.has_gpu():
        package = toolchain.nvcc_package(target.cuda)
        if not package or request.dry_run:
            find_toolchain(target)  # raises: nvcc is missing
        _get_nvcc(package)
        return Plan(target, find_toolchain(target), None, (f"nvcc: from the package {package}",))
    remark = f"torch {target.torch} knows CUDA, but there is no GPU and no nvcc here: Horovod for CPUs only"
    plan = _plan_for(target.without_gpus(), request, cache)
    assert plan is not None
    return Plan(plan.target, plan.tools, plan.built, (*plan.remarks, remark))


def _plan_for(target: Target, request: Request, cache: Path) -> Plan | None:
    """Return the plan for one target; None where only nvcc is missing. Raises UsageError where more is."""
    try:
        tools: Toolchain | None = find_toolchain(target)
        why = ""
    except UsageError as error:
        tools, why = None, str(error)
    # What this machine cannot build it takes as it is, if only the GPUs asked for or present are among its own.
    wanted = target if tools else replace(target, capabilities=request.capabilities or cuda.compute_capabilities())
    built = None if request.force else wheels.find_built(cache, recipe(), wanted, tools)
    if built and why:
        return Plan(target, None, built, (f"the wheel {built.key} was built on another machine: here, {why}",))
    if built or tools:
        return Plan(target, tools, built, ())
    if target.cuda and cuda.find_toolkit(target.cuda.split(".")[0]) is None:
        find_toolchain(target.without_gpus())  # raises if more is missing
        return None
    find_toolchain(target)
    raise AssertionError("find_toolchain has raised")


def _get_nvcc(package: str) -> None:
    """Install nvcc beside torch. Raises UsageError with pip's words if that fails."""
    print(f"nvcc is missing: installing {package} (about 100 MB)", flush=True)
    command = [*commands.module("pip"), "install", "--quiet", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = " ".join(line for line in done.stderr.splitlines() if "ERROR" in line)[:300]
        raise UsageError(
            "horovod", f"nvcc is missing, and pip could not get {package}: {errors}", todo="see --help for --cpu"
        )


def _show(plan: Plan, cache: Path) -> int:
    rows = {**asdict(plan.target), **(asdict(plan.tools) if plan.tools else {})}
    for name, value in rows.items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        print(f"{name:17} {shown or '-'}")
    if plan.built:
        folder, state = plan.built.folder, "in the cache: nothing to build"
    else:
        assert plan.tools is not None
        folder = cache / wheels.key(recipe(), plan.target, plan.tools)
        state = f"to be built ({'4 to 8' if plan.target.cuda else '2 to 4'} minutes on two cores)"
    print(f"wheel             {folder}\nstate             {state}")
    for each in corrections.CORRECTIONS:
        print(f"correction        {each.file}: {each.reason}")
    return EXIT_FINISHED


def _install(built: Built) -> None:
    command = [*commands.module("pip"), "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    subprocess.run([*command, str(built.wheel)], check=True)
    _marker().write_text(built.key)
    print(f"installed {built.wheel.name} ({built.key})")


def _marker() -> Path:
    return Path(str(metadata.distribution("horovod").locate_file(f"horovod-{VERSION}.dist-info"))) / MARKER


def _installed_key() -> str:
    try:
        return _marker().read_text()
    except (metadata.PackageNotFoundError, OSError):
        return ""
