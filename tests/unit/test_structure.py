"""Guards of the structure: who may import whom, how long a file and a function may be, no import cycle.

The rules are those of DESIGN §1. What is allowed by exception is named here, with its reason.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 45
FOLDERS = ("train", "launch", "slurm")
CONTRACT = "ringtune.train.contract"
#: What a package may import of the others; a name stands for itself and all that lies below it.
LAYERS = {
    "train": ["ringtune.train"],
    "launch": ["ringtune.launch", CONTRACT],
    # A sweep is a set of flags of ringtune-train; what it brought is read from run directories.
    # So are the trials of a search, whose settings a job asks of its study.
    "slurm": [
        "ringtune.slurm",
        "ringtune.launch",
        CONTRACT,
        *(f"ringtune.train.{name}" for name in ("compared", "sweep", "results", "search", "space", "study", "trial")),
    ],
}
EXCEPTIONS = {
    # A job whose flags are wrong is refused before it is queued, not when it starts hours later.
    ("ringtune.slurm.submit", "ringtune.train.config"),
    # Doctor asks of every host what a rank asks before it starts.
    ("ringtune.launch.probe", "ringtune.train.hub"),
    # It is a program of its own, started beside the ranks: a gloo rendezvous server, which is Horovod's.
    ("ringtune.launch.rendezvous", "horovod"),
    ("ringtune.train.comm", "horovod"),
}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("ringtune", *(part for part in parts if part != "__init__")))


def project() -> dict[str, str]:
    """Return the source text of every module of the project by its import name."""
    return {module_name(path): path.read_text() for path in python_files(*FOLDERS)}


def imports(sources: Mapping[str, str], module: str) -> Iterator[str]:
    """Yield the module of every import statement, wherever it stands; of the project's own, the most exact name."""
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}:{node.lineno}: a relative import"
            for each in node.names:
                exact = f"{node.module}.{each.name}"
                yield exact if exact in sources else node.module


def is_below(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def layer_errors(sources: Mapping[str, str]) -> list[str]:
    """Return the imports that go against the layers, or that bring in horovod where it must not be."""
    errors = []
    for module in sources:
        allowed = LAYERS[module.split(".")[1]]
        for imported in imports(sources, module):
            if any(module == by and is_below(imported, what) for by, what in EXCEPTIONS):
                continue
            is_foreign = is_below(imported, "ringtune") and not any(is_below(imported, name) for name in allowed)
            if is_foreign or is_below(imported, "horovod"):
                errors.append(f"{module} imports {imported}")
    return errors


def import_cycle(sources: Mapping[str, str]) -> list[str]:
    """Return the modules of one import cycle in order, or nothing; imports inside functions count as well."""
    graph = {module: {each for each in imports(sources, module) if each in sources} for module in sources}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def long_files(sources: Mapping[str, str]) -> list[str]:
    lengths = {name: text.count("\n") for name, text in sources.items()}
    return [f"{name}: {length} lines" for name, length in lengths.items() if length > MAX_FILE_LINES]


def long_functions(sources: Mapping[str, str]) -> list[str]:
    """Return the functions with more lines than allowed, from ``def`` to the last one."""
    found = []
    for name, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    found.append(f"{name}: {node.name} has {length} lines")
    return found


def all_sources() -> dict[str, str]:
    """Return every Python file of the repository, tests and benchmarks too, by its path."""
    files = [ROOT / "setup.py", *python_files(*FOLDERS, "tests", "benchmarks")]
    return {str(path.relative_to(ROOT)): path.read_text() for path in files}


def test_imports_go_one_way_and_horovod_is_imported_by_name_only():
    assert layer_errors(project()) == []


def test_every_exception_is_needed():
    sources = project()
    for module, what in EXCEPTIONS:
        assert any(is_below(each, what) for each in imports(sources, module)), (module, what)


def test_there_is_no_import_cycle():
    assert import_cycle(project()) == []


def test_files_and_functions_are_short():
    sources = all_sources()
    assert long_files(sources) == []
    assert long_functions(sources) == []


def test_the_formatter_wins():
    """Lines are held to 120 by ruff (E501), which no file may switch off."""
    skipped = [name for name, text in all_sources().items() if "fmt: " + "skip" in text or "fmt: " + "off" in text]
    assert skipped == []
    assert "E501" not in (ROOT / "pyproject.toml").read_text()
    assert [name for name, text in all_sources().items() if any(len(line) > 120 for line in text.splitlines())] == []


# Each guard, broken once


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("ringtune.train.step", "from ringtune.launch import hosts"),
        ("ringtune.train.step", "from ringtune.slurm.script import job_script"),
        ("ringtune.launch.run", "from ringtune.train import config"),
        ("ringtune.launch.run", "import ringtune.slurm.queue"),
        ("ringtune.slurm.submit", "from ringtune.train.loop import Loop"),
        ("ringtune.slurm.status", "from ringtune.train import config"),
        ("ringtune.train.step", "import horovod.torch as hvd"),
        ("ringtune.launch.run", "def f():\n    from horovod.runner import launch"),
    ],
)
def test_an_import_against_the_layers_is_found(module, line):
    sources = project()
    broken = {**sources, module: f"{sources[module]}\n{line}\n"}
    assert len(layer_errors(broken)) == 1 and layer_errors(broken)[0].startswith(f"{module} imports ")


def test_a_cycle_is_found_even_if_one_import_hides_in_a_function():
    sources = {
        "ringtune.train.a": "from ringtune.train import b",
        "ringtune.train.b": "def f():\n    import ringtune.train.a",
    }
    assert set(import_cycle(sources)) == {"ringtune.train.a", "ringtune.train.b"}


def test_a_line_too_many_is_found():
    body = "".join(f"    x = {number}\n" for number in range(MAX_FUNCTION_LINES))
    assert long_functions({"a": f"def short():\n{body[:-1].rpartition(chr(10))[0]}\n"}) == []
    assert long_functions({"a": f"class A:\n    def long():\n{body.replace('    ', '        ')}"}) == [
        "a: long has 46 lines"
    ]
    assert long_files({"a": "\n" * MAX_FILE_LINES}) == []
    assert long_files({"a": "\n" * (MAX_FILE_LINES + 1)}) == ["a: 301 lines"]


def test_test_files_have_names_of_their_own():
    """pytest collects one of two files of the same name, and makes an error of the other."""
    names = Counter(path.name for path in python_files("tests") if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []
