"""A torch.distributed script as torchrun users write it: its place comes from the environment."""

import os

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.ones(1) * (dist.get_rank() + 1)
dist.all_reduce(total)
print(
    f"sum {total.item()} rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}, local rank {os.environ['LOCAL_RANK']}"
)
dist.destroy_process_group()
