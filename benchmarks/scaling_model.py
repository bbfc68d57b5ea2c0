"""The α–β model of a data-parallel step: what its parts cost at N ranks. All functions are pure.

Sources. Ring allreduce as a reduce-scatter and an allgather, 2(N-1) messages of S/N bytes: R. Thakur, R. Rabenseifner,
W. Gropp, "Optimization of Collective Communication Operations in MPICH", IJHPCA 19(1), 2005, section 4.5; the lower
bound 2(N-1)/N S on the bytes of a rank: R. Rabenseifner, "Optimization of Collective Reduction Operations", ICCS 2004;
P. Patarasuk, X. Yuan, JPDC 69(2), 2009. Low rank with P and Q sent in turns: L. Zhang et al., "Evaluation and
Optimization of Gradient Compression for Distributed Deep Learning" (ACP-SGD), ICDCS 2023.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ringtune.train.packing import Packer
from ringtune.train.shards import deal_packed


@dataclass(frozen=True)
class Link:
    """What joins the ranks."""

    alpha_s: float  # of one message
    bytes_per_s: float
    start_s: float = 0.0  # of one allreduce, whatever its size: Horovod's cycle and its agreement


@dataclass(frozen=True)
class Compute:
    """What a rank computes in a step, on its own: a part for each token, and one for the step."""

    forward_s_per_token: float
    backward_s_per_token: float
    step_s: float  # optimizer and all else that no token adds to


@dataclass(frozen=True)
class Gradient:
    """What a step sends, in bytes of fp32."""

    total: int
    embeddings: int  # the word embeddings': they are ready last, so nothing hides their way
    row: int  # one row of them


def ring(ranks: int, num_bytes: float, link: Link) -> float:
    """Return the seconds of a ring allreduce: 2(N-1)/N S/B + 2(N-1) α. One rank sends nothing."""
    if ranks <= 1 or num_bytes <= 0:
        return 0.0
    return link.start_s + 2 * (ranks - 1) * (link.alpha_s + num_bytes / ranks / link.bytes_per_s)


def hierarchical(hosts: int, per_host: int, num_bytes: float, inside: Link, between: Link) -> float:
    """Return the seconds of an allreduce within each host and one ring over the hosts.

    2(H-1) messages cross the network instead of 2(N-1).
    """
    return ring(per_host, num_bytes, inside) + ring(hosts, num_bytes, between)


def rows_bytes(vocabulary: int, rows_of_all: float, row_bytes: int) -> float:
    """Return the bytes of summing embeddings by rows: 2 for each row, which ranks have filled it, and the filled rows.

    As `ringtune.train.embedding` sends them.
    """
    return 2 * vocabulary + rows_of_all * row_bytes


def low_rank_bytes(shapes: Sequence[Sequence[int]], rank: int) -> float:
    """Return the bytes of a step with matrices as P or Q in turns, and all else, and what would not shrink, whole."""
    total = 0.0
    for shape in shapes:
        size = float(np.prod(shape))
        if len(shape) >= 2:
            rows, columns = shape[0], size / shape[0]
            size = min(size, rank * (rows + columns) / 2)
        total += 4 * size
    return total


def step_seconds(tokens: float, compute: Compute, early_s: float, late_s: float) -> float:
    """Return the seconds of a step whose slowest rank computes ``tokens``.

    early_s: of what travels while backward goes on; late_s: of what is ready at its end.
    """
    backward = tokens * compute.backward_s_per_token
    return compute.step_s + tokens * compute.forward_s_per_token + max(backward, early_s) + late_s


@dataclass(frozen=True)
class Load:
    """What the ranks of one step get, mean over the steps that were dealt."""

    tokens: float  # of a rank
    balance: float  # mean ÷ largest cost of a rank
    rows_of_all: float  # different tokens of the step

    @property
    def most_tokens(self) -> float:
        """Tokens of average rows that cost what the rank with most has to compute."""
        return self.tokens / self.balance


def deal_steps(
    lengths: np.ndarray,
    vocabulary: Sequence[np.ndarray],
    packer: Packer,
    ranks: int,
    rows_per_rank: int,
    num_steps: int,
    seed: int = 0,
) -> Load:
    """Return what ranks get of steps drawn from real rows and dealt by `ringtune.train.shards`.

    lengths: tokens of each row. vocabulary: the different tokens of each row. Rows are drawn with replacement: the
    global batch of many ranks is larger than a small data set.
    """
    draw = np.random.Generator(np.random.Philox(seed))
    found = []
    for _ in range(num_steps):
        chosen = draw.integers(len(lengths), size=ranks * rows_per_rank)
        costs = packer.costs(lengths[chosen])
        shards = deal_packed(np.arange(len(chosen)), costs, ranks)
        of_shards = [int(costs[each].sum()) for each in shards]
        everyone = np.unique(np.concatenate([vocabulary[row] for row in np.unique(chosen)]))
        found.append((lengths[chosen].sum() / ranks, np.mean(of_shards) / max(of_shards), len(everyone)))
    return Load(*map(float, np.mean(found, axis=0)))


def rate_bytes(rate: str) -> float | None:
    """Return the bytes/s of a rate as tc has it, such as 1gbit; None for what is none."""
    found = re.fullmatch(r"(\d+)([kmg])bit", rate)
    return int(found[1]) * {"k": 1e3, "m": 1e6, "g": 1e9}[found[2]] / 8 if found else None


def fit_link(times: Sequence[tuple[int, int, float]]) -> Link:
    """Return the link that explains measured allreduces best: least squares of the relative error, none below 0.

    times: (ranks, bytes, seconds) of each.
    """
    from scipy.optimize import nnls

    seconds = np.array([each[2] for each in times])
    parts = np.array([(1.0, 2 * (n - 1), 2 * (n - 1) / n * size) for n, size, _ in times])
    start, alpha, per_byte = nnls(parts / seconds[:, None], np.ones(len(times)))[0]
    return Link(float(alpha), 1 / float(per_byte) if per_byte > 0 else float("inf"), float(start))
