"""Architecture search: its network, its loop, its hook, its costs and its result.

Importing this package registers them with MMDetection: name it in ``custom_imports``.
"""

from mmdet.registry import MODELS

from .costs import (
    CostTable,
    count_candidates,
    draw_network,
    find_most_probable,
    time_candidates,
)
from .hook import ArchitectureSearchHook
from .loop import ArchitectureSearchLoop, HalfSampler
from .search_net import HadaptiveSearchNet
from .search_spaces import SEARCH_SPACES

__all__ = [
    'SEARCH_SPACES',
    'ArchitectureSearchHook',
    'ArchitectureSearchLoop',
    'CostTable',
    'HadaptiveSearchNet',
    'HalfSampler',
    'count_candidates',
    'draw_network',
    'find_most_probable',
    'time_candidates',
]

MODELS.register_module(module=HadaptiveSearchNet)
