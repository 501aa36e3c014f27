"""Architecture search: its loop, its hook, its costs and its result."""

from .costs import (
    CostTable,
    count_candidates,
    draw_network,
    find_most_probable,
    time_candidates,
)
from .hook import ArchitectureSearchHook
from .loop import ArchitectureSearchLoop, HalfSampler

__all__ = [
    'ArchitectureSearchHook',
    'ArchitectureSearchLoop',
    'CostTable',
    'HalfSampler',
    'count_candidates',
    'draw_network',
    'find_most_probable',
    'time_candidates',
]
