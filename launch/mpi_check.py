"""Print this process's placement by MPI as ``[rank, size, local_rank, local_size]``.

``preflight.check_mpi`` starts it once under srun before a job.
"""

import json

from mpi4py import MPI

world = MPI.COMM_WORLD
local = world.Split_type(MPI.COMM_TYPE_SHARED)
print(json.dumps([world.rank, world.size, local.rank, local.size]), flush=True)
