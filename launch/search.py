"""The search of ringtune-launch tune: trial after trial, narrowed to the neighbours of the fastest, within a budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ringtune.launch import choices
from ringtune.launch.choices import Choice, Space
from ringtune.launch.steptimes import is_faster, summarise
from ringtune.launch.trial import Measured, Program, measure


def best_of(measured: Sequence[Measured]) -> Measured | None:
    """Return the fastest that is known, the earlier one where two cannot be distinguished; None without any. **Pure.**

    Earlier ones have more of the defaults.
    """
    best: Measured | None = None
    for each in measured:
        if each.times and (best is None or is_faster(each.times, best.times)):
            best = each
    return best


def plan(space: Space) -> list[tuple[str, list[Choice]]]:
    """Return what would be tried if the first placement were the fastest, by stage. **Pure.**"""
    first = choices.placements(space)
    later = [(name, choices.variations(space, stage, first[0])) for name, stage in choices.STAGES]
    return [("ranks x threads", first), *(each for each in later if each[1])]


class Search:
    """Tries choices one after the other; what is known stays readable when it is interrupted."""

    def __init__(
        self,
        space: Space,
        program: Program,
        hosts: Callable[[Choice], Sequence[str]],
        scratch: Path,
        budget_s: float,
        report: Callable[[str], None],
    ) -> None:
        """hosts: gives the flags of ringtune-launch run that say where a choice runs."""
        self.space, self.program, self.hosts, self.scratch = space, program, hosts, scratch
        self.budget_s, self.report = budget_s, report
        self.measured: list[Measured] = []
        self.num_left_out = 0  # choices, for want of time
        self.num_launches = 0
        self.most_rows: int | None = None  # of a shard that fits into a GPU's memory; None: not known
        self.began_at = time.monotonic()

    def run(self) -> None:
        """Try everything that the budget allows."""
        if self.space.gpus:
            self._find_largest_shard()
        for choice in choices.placements(self.space):
            self._try(self._fitting(choice))
        for _, stage in choices.STAGES:
            best = best_of(self.measured)
            if best is None:
                return
            for choice in choices.variations(self.space, stage, best.choice):
                self._try(choice)
        self._confirm()

    def _find_largest_shard(self) -> None:
        """Deal the rows into more and more shards until one fits into the memory of every rank's GPU.

        A rank without memory ends the job with an error that names it, so all ranks agree.
        """
        choice = choices.placements(self.space)[0]
        found = self._try(choice)
        while found is not None and found.no_memory and choice.accumulation is not None:
            choice = replace(choice, accumulation=2 * choice.accumulation)
            found = self._try(choice)
        if found is not None and found.times:
            self.most_rows = self.space.rows(choice)
            self.report(f"the largest shard that fits into the memory of the GPUs has {self.most_rows} rows")

    def _fitting(self, choice: Choice) -> Choice:
        """Return the choice with as many shards as the memory asks for."""
        while self.most_rows and choice.accumulation and self.space.rows(choice) > self.most_rows:
            choice = replace(choice, accumulation=2 * choice.accumulation)
        return choice

    def _confirm(self) -> None:
        """Launch the fastest and the one next to it again: within one launch a machine's other work looks alike."""
        best = best_of(self.measured)
        others = [each for each in self.measured if each.times and each is not best]
        if best is None or not others:
            return
        second = min(others, key=lambda each: summarise(each.times).median)
        for each in (best, second):
            self._launch(each, "again")

    def _try(self, choice: Choice) -> Measured | None:
        """Measure a choice unless it is known, cannot be, or the time is up; return what is known of it."""
        known = next((each for each in self.measured if each.choice == choice), None)
        if known is not None or not self.space.is_legal(choice):
            return known
        found = Measured(choice)
        if self.measured and self._left_s() <= 0:
            self.num_left_out += 1
            return None
        self.measured.append(found)
        self._launch(found, "")
        self.num_left_out += found.cut_off
        return found

    def _launch(self, found: Measured, word: str) -> None:
        if self.num_launches and self._left_s() <= 0:
            return
        self.num_launches += 1
        name = f"trial {self.num_launches}{f' ({word})' if word else ''}: {found.choice}"
        folder = self.scratch / f"trial-{self.num_launches}"
        measure(self.program, found, self.hosts(found.choice), folder, max(1.0, self._left_s()))
        spent = time.monotonic() - self.began_at
        self.report(f"[{spent:.0f} of {self.budget_s:.0f} s] {name}: {outcome(found)}")

    def _left_s(self) -> float:
        return self.budget_s - (time.monotonic() - self.began_at)


def outcome(found: Measured) -> str:
    """Return in words what is known of a choice. **Pure.**"""
    if not found.times:
        return f"failed: {found.failure}"
    about = summarise(found.times)
    spread = f"{about.quarter * 1e3:.1f} to {about.three_quarters * 1e3:.1f}"
    failed = f"; then failed: {found.failure}" if found.failure else ""
    return f"{about.median * 1e3:.1f} ms a step (middle half {spread}), {about.num_steps} steps{failed}"
