"""Two processes that train together."""

import socket

import torch

# What launchers set for each of two processes.
LAUNCHERS = {
    'pytorch': lambda rank: dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE='2'),
    'mpi': lambda rank: {
        'OMPI_COMM_WORLD_RANK': rank,
        'OMPI_COMM_WORLD_LOCAL_RANK': rank,
        'OMPI_COMM_WORLD_SIZE': '2',
    },
    'slurm': lambda rank: {
        'SLURM_PROCID': rank,
        'SLURM_LOCALID': rank,
        'SLURM_NTASKS': '2',
        'SLURM_NODELIST': 'localhost',
    },
}


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return str(sock.getsockname()[1])


def assert_equal(first, second):
    """All parameters and temperatures; the running statistics are each process's own."""
    names = [name for name in first if 'running_' not in name]
    assert any(name.endswith('temperature') for name in names)
    assert [name for name in names if not torch.equal(first[name], second[name])] == []
