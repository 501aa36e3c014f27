"""Compares the times of functions on a machine that does other things as well."""

import time
from collections.abc import Callable


def measure_in_turn(
    functions: dict[str, Callable[[], object]], rounds: int, warmup: int
) -> dict[str, list[float]]:
    """Times functions by turns, so that whatever slows the machine down slows all of them.

    Wall-clock time in the order of ``functions``, one call of each per round. A single time says
    little; compare medians, or the calls of one round with each other.

    Args:
        functions: What is timed, by name. A function that leaves work to a device waits for it.
        rounds: Timed calls of each function, at least 1.
        warmup: Calls of each function before those, at least 0.

    Returns:
        For each name the seconds of its calls, one value per round.

    Raises:
        ValueError: If ``rounds`` or ``warmup`` is below its limit.
    """
    if rounds < 1 or warmup < 0:
        raise ValueError(f'rounds must be at least 1 and warmup 0, got {rounds} and {warmup}')
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for index in range(warmup + rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            end = time.perf_counter()
            if index >= warmup:
                seconds[name].append(end - start)
    return seconds
