"""From the batch sizes a user gives to those a run keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ringtune.train.contract import UsageError

DEFAULT_GLOBAL_BATCH_SIZE = 32  # the BERT paper's fine-tuning (Devlin et al. 2019, appendix A.3)
DEFAULT_EXACT_SHARDS = 8  # lets an exact run move between 1, 2, 4 and 8 ranks


@dataclass(frozen=True)
class Batching:
    """How many rows a step has and into how many shards they are dealt."""

    global_batch_size: int  # rows per optimizer update, over all ranks
    num_shards: int  # parts of the step, each computed as one forward and backward


def resolve(
    world_size: int,
    mode: str,
    global_batch_size: int | None,
    per_device_train_batch_size: int | None,
    gradient_accumulation_steps: int | None,
    num_shards: int | None,
) -> Batching:
    """Return the batching that all the given numbers agree on. **Pure.**

    ``global = per_device x gradient_accumulation_steps x world_size`` must hold exactly for what is given. Raises
    UsageError with the numbers and the nearest legal ones.
    """
    given = {
        "global_batch_size": global_batch_size,
        "per_device_train_batch_size": per_device_train_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "num_shards": num_shards,
    }
    for name, value in given.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name}", f"{value} is not a batch size", legal="a whole number from 1")

    accumulation = gradient_accumulation_steps or 1
    if per_device_train_batch_size is not None:
        unit = per_device_train_batch_size * world_size
        if global_batch_size is None:
            global_batch_size = unit * accumulation
        elif gradient_accumulation_steps is None and global_batch_size % unit == 0:
            accumulation = global_batch_size // unit
        if global_batch_size != unit * accumulation:
            step = unit * (gradient_accumulation_steps or 1)
            nearest = _nearest_multiples(global_batch_size, unit) if gradient_accumulation_steps is None else f"{step}"
            raise UsageError(
                "--global_batch_size",
                f"{global_batch_size} is not per_device_train_batch_size {per_device_train_batch_size}"
                f" x gradient_accumulation_steps {gradient_accumulation_steps or 'any'} x world size {world_size}",
                legal=f"nearest legal --global_batch_size: {nearest}",
                todo="change one of the numbers or leave one out",
            )
    return Batching(global_batch_size or DEFAULT_GLOBAL_BATCH_SIZE, _shards(world_size, mode, accumulation, num_shards))


def _shards(world_size: int, mode: str, accumulation: int, num_shards: int | None) -> int:
    if num_shards is None:
        fewest = world_size * accumulation
        return fewest if mode == "fast" else math.lcm(DEFAULT_EXACT_SHARDS, fewest)
    if num_shards % world_size:
        raise UsageError(
            "--num_shards",
            f"{num_shards} shards cannot be dealt evenly to {world_size} ranks",
            legal=f"nearest legal: {_nearest_multiples(num_shards, world_size)};"
            f" legal world sizes: {', '.join(str(n) for n in range(1, num_shards + 1) if num_shards % n == 0)}",
            todo="change --num_shards or the number of ranks",
        )
    return num_shards


def _nearest_multiples(value: int, unit: int) -> str:
    below = value // unit * unit
    return f"{below} or {below + unit}" if below else f"{unit}"
