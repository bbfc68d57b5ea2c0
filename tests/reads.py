"""What the host reads of tensors. On a GPU each of these waits until the GPU has computed what is read."""

from __future__ import annotations

import inspect

from torch.overrides import TorchFunctionMode

READS = ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__float__", "__int__", "__index__", "__array__")
#: Functions that read tensors of the host: of a batch that is being built, and of what the ranks told each other.
ON_HOST = ("_build", "_exchange")


class Reads(TorchFunctionMode):
    """Counts the reads made inside it, by name; on a CPU they cost nothing and look the same."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in READS and not any(frame.function in ON_HOST for frame in inspect.stack(context=0)):
            self.found.append(name)
        return func(*args, **(kwargs or {}))
