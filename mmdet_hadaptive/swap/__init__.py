"""Puts Hadaptive-Net into a config of MMDetection, and tests the result before it writes it."""

from .detector import find_detector
from .edits import Edit, apply_edits
from .errors import SmokeTestError, SwapError
from .rendering import render_config
from .rules import plan_swap
from .smoke import SmokeTestResult, build_for_smoke_test, smoke_test
from .swap import load_source, swap_backbone

__all__ = [
    'Edit',
    'SmokeTestError',
    'SmokeTestResult',
    'SwapError',
    'apply_edits',
    'build_for_smoke_test',
    'find_detector',
    'load_source',
    'plan_swap',
    'render_config',
    'smoke_test',
    'swap_backbone',
]
