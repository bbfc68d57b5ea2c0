"""Word embeddings by rows against dense ones, asserted on every rank; run under 1, 2 or 4 ranks."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from ringtune.train.comm import Comm
from ringtune.train.digest import state_digest
from words import NUM_TOKENS, Bag, reducer_of, same, train

comm = Comm()
add_async, sent = comm.add_async, {}


def counted(tensor, name):
    sent[name] = sent.get(name, 0) + tensor.numel() * tensor.element_size()
    return add_async(tensor, name)


comm.add_async = counted


def run(num_steps, shards, **settings):
    """Train; return parameters and moments, and the bytes that the matrix took on the wire."""
    model = Bag()
    sent.clear()
    reducer = reducer_of(model, comm=comm, num_shards=4, **settings)
    result = train(model, reducer, range(num_steps), shards)
    names = [name for name in sent if name == "gradient/words.weight" or name.startswith("embedding/")]
    return result, sum(sent[name] for name in names)


per_rank = 4 // comm.size
shards = tuple(range(comm.rank * per_rank, (comm.rank + 1) * per_rank))
torch.use_deterministic_algorithms(True)
(dense, all_bytes), (by_rows, few_bytes) = (run(50, shards, exact=True, by_rows=value) for value in (False, True))
assert same(dense, by_rows)
width = 32
if comm.size > 1:
    assert all_bytes == 50 * NUM_TOKENS * width * 8, all_bytes
    # Tokens come from 30 and the padding, which has no gradient: at most 30 rows of int64, and a count of each row.
    assert 50 * 2 * NUM_TOKENS < few_bytes <= 50 * (2 * NUM_TOKENS + 30 * width * 8), few_bytes
print(f"exact, rank {comm.rank}: {state_digest({str(i): each for i, each in enumerate(by_rows)})}")

# In fast mode within rounding; the last rank has no rows. Two ranks add two numbers, whose order does not show.
mine = () if comm.rank == comm.size - 1 > 0 else shards
dense, by_rows = (run(5, mine, by_rows=value)[0] for value in (False, True))
assert same(dense, by_rows) or comm.size > 2
for one, other in zip(dense, by_rows, strict=True):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
everyone = comm.gather_values(state_digest({str(i): each for i, each in enumerate(by_rows)}), "facts/replicas")
assert len(set(everyone)) == 1

print(f"rank {comm.rank} of {comm.size}: all facts hold")
sys.stdout.flush()
comm.close()
