"""Which rows are sorted by length together, and dealt to a rank in one piece. A function of a row's place alone.

Small chunks let many ranks share a short input, large ones leave less padding. So the first chunks are small, those
that only a longer input has are large; and the large ones are dealt first, so that the ranks end together on small ones
(guided self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987).
"""

from __future__ import annotations

from collections.abc import Sequence

SMALL, LARGE, NUM_SMALL = 512, 1024, 16


def size(chunk: int) -> int:
    """Return how many rows a chunk takes; the last may have fewer. **Pure.**"""
    return SMALL if chunk < NUM_SMALL else LARGE


def first_row(chunk: int) -> int:
    """Return the number of a chunk's first row. **Pure.**"""
    return SMALL * min(chunk, NUM_SMALL) + LARGE * max(0, chunk - NUM_SMALL)


def slices(num_rows: int) -> list[slice]:
    """Return the rows of each chunk. **Pure.**"""
    found: list[slice] = []
    while first_row(len(found)) < num_rows:
        found.append(slice(first_row(len(found)), min(first_row(len(found) + 1), num_rows)))
    return found


def largest_first(chunks: Sequence[int]) -> list[int]:
    """Return chunks in the order in which they are dealt. **Pure.**"""
    return sorted(chunks, key=size, reverse=True)
