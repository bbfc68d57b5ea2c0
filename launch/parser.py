"""The parser of ringtune-launch and ringtune-slurm: a mistake is one line, and an unknown flag names the nearest."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ringtune.train.contract import UsageError, nearest

#: Flags of torchrun, accelerate launch and mpirun, and what ringtune-launch run has instead.
ELSEWHERE = {
    "nproc-per-node": "-np N for all hosts together, or -H a:4,b:4",
    "num-processes": "-np N",
    "nnodes": "-H a:4,b:4",
    "num-machines": "-H a:4,b:4",
    "machinefile": "--hostfile FILE",
    "master-addr": "nothing: the address is found",
    "master-port": "nothing: a free port is found",
    "main-process-port": "nothing: a free port is found",
    "node-rank": "nothing: ranks are assigned from one host",
    "machine-rank": "nothing: ranks are assigned from one host",
    "multi-gpu": "nothing: each rank takes one GPU",
    "mixed-precision": "--bf16 or --fp16 of ringtune-train, after --",
    "config-file": "--config FILE of ringtune-train, after --",
}


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError. Sub-commands have its class as well."""

    def __init__(self, *arguments: Any, passes_unknown: bool = False, behind: str = "", **settings: Any) -> None:
        """passes_unknown: give unknown flags back, for the caller to judge. behind: what comes after ``--``."""
        super().__init__(*arguments, **settings)
        self.passes_unknown, self.behind = passes_unknown, behind

    def error(self, message: str) -> Any:
        """Raise UsageError for what argparse found, such as ``argument --jobs: invalid count value: 'x'``."""
        found = re.fullmatch(r"argument (\S+): (.*)", message, re.DOTALL)
        where, wrong = found.groups() if found else (self.prog.partition(" ")[2] or "arguments", message)
        raise UsageError(where, wrong, todo="see --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; raise UsageError for an unknown flag."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown and not self.passes_unknown:
            raise self.unknown(unknown)
        return options, unknown

    def unknown(self, words: Sequence[str]) -> UsageError:
        """Return the error for words that the parser does not know."""
        word = next((each for each in words if each.startswith("-")), words[0]).partition("=")[0]
        name = word.lstrip("-").replace("_", "-")
        legal = nearest(word, self.known()) if name else ""
        if self.behind and name in ELSEWHERE:
            legal = f"instead {ELSEWHERE[name]}"
        return UsageError(word, f"{self.prog} takes no such argument", legal=legal, todo=self.behind or "see --help")

    def known(self) -> Iterable[str]:
        """Return all flags."""
        return self._option_string_actions
