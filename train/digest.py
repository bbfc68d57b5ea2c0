"""One number for many tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def state_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return one sha256 over names and exact bytes of the tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
