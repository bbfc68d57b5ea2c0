"""Print this process's place as MPI sees it: ``[rank, size, local_rank, local_size]``; started once under srun as a proof."""

import json

from mpi4py import MPI

world = MPI.COMM_WORLD
local = world.Split_type(MPI.COMM_TYPE_SHARED)
print(json.dumps([world.rank, world.size, local.rank, local.size]), flush=True)
