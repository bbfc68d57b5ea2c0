"""Saving without stopping: rank 0 snapshots to host memory and a thread writes, verifies and rotates."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ringtune.train import adapter, checkpoint, disk, final, model, publish, rank_state
from ringtune.train.checkpoint import RunState, Snapshot
from ringtune.train.contract import CHECKPOINT_PREFIX, SET_ASIDE_PREFIX, TASK_FILE
from ringtune.train.optimizer import optimizer_tensors
from ringtune.train.reduction import own_state
from ringtune.train.step import Stepper
from ringtune.train.stop import StopFlag
from ringtune.train.tensor_file import TensorFile

FAILURE_PATIENCE_S = 5  # for what a failed rank 0 is saving; the job is to end within seconds


class Saver:
    """The checkpoints of one run. On all ranks but rank 0, what is not collective does nothing."""

    def __init__(
        self, folder: Path, stepper: Stepper, files: Mapping[str, bytes], *, keep: int | None, merges: bool = False
    ) -> None:
        """files: configuration, tokenizer and task, written into every checkpoint. keep: how many of the newest.
        merges: whether a model with an adapter is written merged, too, at the end."""
        self.folder, self.files, self.keep = folder, files, keep
        self.network, self.optimizer, self.comm = stepper.model, stepper.optimizer, stepper.comm
        self.reducer, self.average, self.merges = stepper.reducer, stepper.average, merges
        self.adapter = adapter.of(self.network)
        self.weights_file = checkpoint.MODEL_FILE if self.adapter is None else checkpoint.ADAPTER_FILE
        self.writes = self.comm.rank == 0
        self.model_file, self.optimizer_file = TensorFile({"format": "pt"}), TensorFile()
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[None] | None = None

    def open(self, going_on_from: int, best: int) -> bool:
        """Remove what a killed process left in the folder, and the checkpoints that it had still to remove when it had
        saved the one to go on from; return whether ``best`` can be a link there.

        going_on_from: its step, 0 for a new run. best: the step of the best one, 0 if none is known.
        """
        if not self.writes:
            return True
        for folder in (self.folder, *self.folder.glob(f"{SET_ASIDE_PREFIX}*")):
            publish.remove_left_behind(folder)
        if going_on_from:
            self._rotate(going_on_from, best)
        return checkpoint.can_link(self.folder)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all that training changes: parameters, buffers, moments and averages, by name."""
        moments = {f"optimizer/{name}": each for name, each in optimizer_tensors(self.network, self.optimizer).items()}
        averages = {f"average/{name}": each for name, each in self.average.values.items()}
        return {**self.network.state_dict(), **moments, **averages}

    def save(self, state: RunState) -> None:
        """Snapshot the run and start to write it, once the save before is on disk. **Collective.**"""
        self.settle()
        parts = self._write_parts()
        if not self.writes:
            return
        moments = optimizer_tensors(self.network, self.optimizer)
        optimizer = self.optimizer_file.fill({**moments, **self.average.trained_tensors()})
        with self.average.in_model():
            weights = self.model_file.fill(self._weights())
        snapshot = Snapshot(
            state=state,
            model=weights,
            optimizer=optimizer,
            files=self.files,
            parts=parts,
            weights_file=self.weights_file,
        )
        self.pending = self.pool.submit(self._write, snapshot)

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return what is saved of the model, by name in its file."""
        return self.network.state_dict() if self.adapter is None else self.adapter.tensors()

    def _write_parts(self) -> list[rank_state.Part]:
        """Write what each rank has of its own, where it has any, and return what all wrote. **Collective.**

        Training waits for it: rank 0 must know that all of it is on disk before it publishes a checkpoint with it.
        """
        mine = own_state(self.reducer)
        if not mine:
            return []
        part = self.comm.work_together(
            lambda: rank_state.write(self.folder, self.comm.rank, mine), StopFlag(), "saver/part"
        )
        parts = self.comm.gather_values(part, "saver/parts")
        self.comm.on_rank_0(lambda: rank_state.require_all(parts), StopFlag(), "saver/seen")
        return parts

    def _write(self, snapshot: Snapshot) -> None:
        path = checkpoint.write_checkpoint(self.folder, snapshot)
        reason = checkpoint.verify(path)
        if reason is not None:
            raise OSError(f"{path}: what was just written cannot be read back: {reason}")
        self._rotate(snapshot.state.step, snapshot.state.best.step)

    def _rotate(self, step: int, best: int) -> None:
        checkpoint.rotate(self.folder, self.keep, {self._path(step), self._path(best)})

    def _wait(self, limit_s: float | None = None) -> None:
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result(limit_s)

    def settle(self) -> None:
        """Wait until what is being saved is on disk; a failure to save ends all ranks. **Collective.**"""
        # A flag that nobody sets: this wait must not be cut short by a stop.
        self.comm.on_rank_0(self._wait, StopFlag(), "saver/settle")

    def settle_after_failure(self, *, on_all: bool) -> Exception | None:
        """Wait until what is being saved is on disk; return why it is not, None if it is. Raises nothing: the failure
        before is what the user has to hear of.

        on_all: whether all ranks have failed alike, so that all wait, **collective**; else rank 0 waits alone, and not
        for long: the others may be in a collective that it never enters.
        """
        try:
            if on_all:
                self.settle()
            else:
                self._wait(FAILURE_PATIENCE_S)
        except TimeoutError:
            return TimeoutError(f"it was not on disk after {FAILURE_PATIENCE_S} s")
        except Exception as error:
            return error
        return None

    def point_best(self, step: int) -> None:
        """Make ``best`` the checkpoint of a step, once it is on disk. **Collective.**"""
        self.settle()
        if self.writes:
            checkpoint.point_best(self.folder, self._path(step))

    def add_file(self, step: int, name: str, content: bytes) -> None:
        """Write a file into the checkpoint of a step, once that is on disk. **Collective.**

        Survives a crash at any point: it is there as a whole, or not. The manifest does not list it.
        """
        self.settle()
        if self.writes:
            temporary = publish.temporary_file(self.folder, name)
            disk.write_bytes(temporary, content)
            disk.rename(temporary, self._path(step) / name)

    def load_best(self, step: int) -> None:
        """Put the weights of a step's checkpoint into the model. **Collective.**"""
        path = self._path(step)
        saved = self.comm.work_together(lambda: checkpoint.load_checkpoint(path), StopFlag(), "saver/best")
        model.restore_model(self.network, saved.model, str(path))

    def write_final_model(self, task_bytes: bytes, facts: Mapping[str, Any]) -> None:
        """Leave the model where the Hugging Face Trainer would, and facts of the run in ``finished.json``.

        task_bytes: content of ``task.json``. **Collective.**
        """
        self.settle()  # what is being saved is in the memory that is filled here
        if self.writes:
            weights = self.model_file.fill(self._weights())
            files = {**self.files, TASK_FILE: task_bytes}
            if self.adapter is not None:
                self._write_merged(self.adapter, files)
            final.write(self.folder, weights, files, facts, weights_file=self.weights_file)

    def _write_merged(self, own: adapter.Adapter, files: Mapping[str, bytes]) -> None:
        """Write the model with its adapter merged in, which is then gone from it, if that is asked for."""
        if not self.merges:
            final.write_merged(self.folder, None, {})
            return
        whole = own.merge()
        files = {name: content for name, content in files.items() if name not in adapter.FILES}
        content = TensorFile({"format": "pt"}).fill(whole.state_dict())
        final.write_merged(self.folder, content, files | model.config_files(whole))

    def _path(self, step: int) -> Path:
        return self.folder / f"{CHECKPOINT_PREFIX}{step}"


def versions() -> dict[str, str]:
    """Return the versions of what computes a run."""
    names = ("ringtune", "torch", "transformers", "horovod", "safetensors")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
