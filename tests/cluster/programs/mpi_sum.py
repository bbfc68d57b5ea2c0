"""A plain mpi4py script."""

from mpi4py import MPI

world = MPI.COMM_WORLD
print(f"sum {world.allreduce(world.rank + 1)} rank {world.rank} of {world.size}")
