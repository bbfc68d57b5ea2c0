"""Tensors copied into host memory as the content of a safetensors file, ready to be written.

The memory is kept for the next copy: the kernel clears fresh memory page by page, which takes five times as long as the
copy itself. A snapshot of a run is as many bytes as model and optimizer, at every save.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

#: The format's names of types (https://github.com/huggingface/safetensors, "Format").
TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.float64: "F64",
}
ALIGNMENT = 8  # bytes; of the tensors' part, and of the largest type


class TensorFile:
    """The content of one file, and the memory that it is in."""

    def __init__(self, metadata: Mapping[str, str] | None = None) -> None:
        """metadata: for the file's head."""
        self.metadata = metadata
        self.memory = torch.empty(0, dtype=torch.uint8)

    def fill(self, tensors: Mapping[str, torch.Tensor]) -> memoryview:
        """Return the content of a file of these tensors; it stays as it is until the next call.

        Of tensors that share storage (tied weights) only the first is in it: safetensors refuses the others, and
        transformers ties them again when it loads.
        """
        chosen = _without_tied(tensors)
        head, places = layout(chosen, self.metadata)
        size = len(head) + sum(each.nbytes for each in chosen.values())
        on_gpu = any(each.is_cuda for each in chosen.values())
        if self.memory.numel() != size:
            # Pinned memory: all copies are under way at once, at the speed of the bus.
            self.memory = torch.empty(size, dtype=torch.uint8, pin_memory=on_gpu)
        self.memory[: len(head)] = torch.frombuffer(head, dtype=torch.uint8)
        for name, tensor in chosen.items():
            start = len(head) + places[name]
            mine = self.memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            mine.copy_(tensor.detach(), non_blocking=True)
        if on_gpu:
            torch.cuda.synchronize()
        return self.memory.numpy().data


def layout(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None) -> tuple[bytearray, dict[str, int]]:
    """Return the head of a file and where each tensor begins behind it, in bytes. **Pure.**

    The head is its length in 8 bytes and JSON, filled up with spaces. Larger types come first: all are then aligned.
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    places, end = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        places[name], end = end, end + tensor.nbytes
        offsets = [places[name], end]
        entries[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    words = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    words += b" " * (-len(words) % ALIGNMENT)
    return bytearray(len(words).to_bytes(8, "little") + words), places


def _without_tied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors without those whose storage is another's."""
    first: dict[tuple[int, int], str] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.numel()) if tensor.numel() else (-len(first) - 1, 0)
        first.setdefault(place, name)
    return {name: tensors[name] for name in first.values()}
