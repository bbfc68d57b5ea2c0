"""What a run reports: metrics.jsonl, TensorBoard, the progress bar, and words for the user."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from ringtune.train import disk, publish
from ringtune.train.best import Best
from ringtune.train.board import Board
from ringtune.train.checkpoint import MODEL_FILE, weights_file
from ringtune.train.config import TrainConfig
from ringtune.train.contract import CONFIG_FILE, METRICS_FILE, PREDICTIONS_FILE, TENSORBOARD_DIR
from ringtune.train.device import GIB
from ringtune.train.final import MERGED_DIR
from ringtune.train.metrics import MetricsFile
from ringtune.train.progress import Progress
from ringtune.train.slices import ColumnScores, defined_only
from ringtune.train.step import StepPlan, StepResult


class Journal:
    """Everything a run writes beside its checkpoints. On all ranks but rank 0 it does nothing."""

    def __init__(
        self,
        folder: Path,
        *,
        step: int,
        total_steps: int,
        writes: bool,
        board: bool,
        bar: bool,
        metrics: Mapping[str, Any] | None,
    ) -> None:
        """Open the files for a run that goes on from ``step``.

        writes: whether this is rank 0. metrics: of the checkpoint's state.
        """
        self.writes, self.shows_bars = writes, writes and bar
        self.total_steps = total_steps
        self.bar = Progress(total_steps, "training", initial=step, shown=self.shows_bars)
        self.board: Board | None = None
        if not writes:
            return
        self.metrics = MetricsFile(folder / METRICS_FILE)
        wrong = self.metrics.truncate_after(step, metrics)
        if wrong:
            self.report(wrong)
        if board:
            self.board = Board(folder / TENSORBOARD_DIR, step)

    def step(self, plan: StepPlan, result: StepResult, seconds: float) -> None:
        """Move the bar."""
        self.bar.update(plan.step, f"loss {result.loss:.4f}, {plan.num_features / seconds:.1f} samples/s")

    def record_step(self, plan: StepPlan, result: StepResult, seconds: float, epoch: float) -> None:
        """Write the metrics of a step. epoch: epochs done, with a fraction."""
        values = {
            "epoch": epoch,
            "total_steps": self.total_steps,
            "loss": result.loss,
            "learning_rate": plan.learning_rate,
            "grad_norm": result.grad_norm,
            "num_tokens": result.num_tokens,
            "padding_share": 1 - result.num_tokens / result.num_padded_tokens,
            "samples_per_s": plan.num_features / seconds,
            "tokens_per_s": result.num_tokens / seconds,
            "rank_balance": result.balance,
            "comm_s": result.comm_s,
            "peak_memory_gib": result.peak_memory / GIB,
            "updated": result.updated,
        }
        self._record("train", plan.step, values)

    def record_rows(self, step: int, rows: list[int]) -> None:
        """Write which rows the ranks computed in a step."""
        if self.writes:
            self.metrics.write({"event": "rows", "step": step, "rows": rows})

    def record_scores(self, step: int, scores: Mapping[str, float], best: float | None) -> None:
        """Write and print the scores of an evaluation. best: the best so far of the score that decides."""
        self._record("eval", step, {**defined_only(scores), "best": best})
        self.report(f"step {step}: " + ", ".join(f"{name} {short(each)}" for name, each in scores.items()))

    def record_slices(self, step: int, found: Sequence[ColumnScores], score: str) -> None:
        """Write the scores of an evaluation by slice, and print those of the score that decides."""
        for each in found:
            gaps = {f"{name}_gap_by_{each.column}": gap for name, gap in each.gaps().items()}
            self._record("slices", step, {**each.as_json(), **gaps})
            self.report(f"step {step}: eval_{each.line(score)}")

    def _record(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        self.metrics.write({"event": event, "step": step, **values})
        if self.board is not None:
            self.board.add(event, values, step)

    def metrics_entry(self) -> publish.Entry | None:
        """Return size and sha256 of the metrics so far; None on other ranks than rank 0."""
        return self.metrics.checksum.entry() if self.writes else None

    def rows_bar(self, num_rows: int, what: str) -> Progress:
        """Return a bar for work on rows."""
        return Progress(num_rows, what, unit="rows", shown=self.shows_bars)

    def report(self, words: str) -> None:
        """Print for the user, once."""
        if self.writes:
            print(words, flush=True)

    def close(self) -> None:
        """Leave the bar as it is and flush the curves."""
        self.bar.close()
        if self.board is not None:
            self.board.close()


def short(value: float | None) -> str:
    """Return a score as a person reads it. **Pure.**"""
    if value != value:
        return "not defined"
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def closing_message(config: TrainConfig, pipeline: str, score: str, best: Best, peak_memory: int) -> str:
    """Return what a finished run prints: its best score, its model, and commands to try next.

    pipeline: of transformers, for the model; "": it has none. peak_memory: bytes, of the rank that used most; 0 if no
    step was taken.
    """
    folder = Path(config.output_dir)
    lines = [f"best {score} {short(best.score)} at step {best.step}"] if best.score is not None else []
    if best.score is None and config.load_best_model_at_end:
        lines.append(f"there is no best model: {score} was not defined at any evaluation; the last model is left")
    lines += [f"peak memory of a rank {peak_memory / GIB:.2f} GiB"] if peak_memory else []
    longer = f"--num_train_epochs {config.num_train_epochs + 1:g}"
    if config.max_steps > 0:
        longer = f"--max_steps {2 * config.max_steps}"
    lines += [
        f"model in {folder}",
        "try next:",
        f"  tensorboard --logdir {folder / TENSORBOARD_DIR}",
        f"  ringtune-train --config {folder / CONFIG_FILE} {longer}",
        f"  ringtune-predict --model_name_or_path {folder} --input FILE --output predicted.jsonl",
    ]
    whole = folder / MERGED_DIR if config.save_merged_model else folder
    if pipeline and weights_file(whole) == MODEL_FILE:
        call = f"print(pipeline('{pipeline}', '{whole}')('what a film'))"
        if pipeline == "fill-mask":
            call = f"p = pipeline('{pipeline}', '{whole}'); print(p('what a ' + p.tokenizer.mask_token))"
        lines.append(f'  python -c "from transformers import pipeline; {call}"')
    return "\n".join(lines)


def _prediction_text(value: Any) -> str:
    """Return a prediction as text: several labels, and a text of several lines, as JSON. **Pure.**"""
    if isinstance(value, list) or (isinstance(value, str) and any(each in value for each in "\t\r\n")):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def write_predictions(folder: Path, columns: Mapping[str, pa.Array]) -> None:
    """Write ``index<tab>prediction`` for each test row, as run_glue.py does. columns: of `Task.predict_rows`."""
    values = next(iter(columns.values())).to_pylist()
    shown = map(_prediction_text, values)
    lines = [f"{index}\t{value}" for index, value in enumerate(shown)]
    disk.replace_text(folder / PREDICTIONS_FILE, "\n".join(["index\tprediction", *lines, ""]))
