"""Two processes on one machine that work together by gloo."""

import datetime

import torch
import torch.distributed as dist


def _join(rank, work, folder):
    torch.set_num_threads(1)
    options = {"rank": rank, "world_size": 2, "timeout": datetime.timedelta(seconds=60)}
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", **options)
    torch.save(work(rank), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def in_two_processes(work, folder):
    """Return what work(rank), a function of a module, returns in each of two processes."""
    torch.multiprocessing.spawn(_join, (work, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]
