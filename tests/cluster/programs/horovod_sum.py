"""A plain Horovod script, which knows nothing of ringtune."""

import horovod.torch as hvd
import torch

hvd.init()
total = hvd.allreduce(torch.full((3,), hvd.rank() + 1.0), op=hvd.Sum, name="x")
print(f"sum {total.tolist()} rank {hvd.rank()} of {hvd.size()}, local rank {hvd.local_rank()} of {hvd.local_size()}")
