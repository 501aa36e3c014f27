"""The search spaces: tables of which some blocks are one of several.

A space is a table as in :mod:`mmdet_hadaptive.models.architectures`, in which a block may also
be ``dict(choices=[...])``: a list of blocks, and of None where nothing is a candidate, too. All
candidates of a choice have the same ``channels`` and the same stride, so that whichever is taken,
what comes next fits; nothing is a candidate where the channels stay the same and the stride is 1.

Source of the space 'small': arXiv 2505.22226, section 3.4, and the authors' release.
"""

from collections.abc import Sequence
from typing import Any

from mmdet_hadaptive.models.architectures import (
    Block,
    ach,
    check_block,
    conv,
    ghost,
    inverted_residual,
)

Candidate = Block | None


def _choice(*candidates: Candidate) -> Block:
    return dict(choices=[candidate and dict(candidate) for candidate in candidates])


def _space(*stages: list[Block]) -> dict[str, Any]:
    return dict(
        stages=[
            [_choice(*(conv(32, kernel, stride=2, act=False) for kernel in (2, 3)))],
            [
                _choice(*(conv(48, kernel, stride=2) for kernel in (2, 3))),
                conv(32, 1),
            ],
            *stages,
        ],
        final_channels=960,
    )


def _small_stage(
    channels: int, first: int, other: int, num_selected: int, kernel: int, count: int
) -> list[Block]:
    """A stage of the authors' space: expansions of Ghost, and one selection for all of ACH."""
    opening = [ghost(channels, first, k, stride=2) for k in (2, 3)]
    opening += [ach(channels, num_selected, k, stride=2) for k in (2, 3)]
    others = [ghost(channels, other, kernel), ach(channels, num_selected, kernel), None]
    return [_choice(*opening), *(_choice(*others) for _ in range(count))]


def _wide_stage(
    channels: int,
    first: int,
    expansions: tuple[int, int],
    num_selected: int,
    widths: tuple[int, int],
    count: int,
) -> list[Block]:
    """The same with all kernels, two expansions of Ghost, and plain expansions of given widths."""
    opening = [ghost(channels, first, k, stride=2) for k in (2, 3)]
    opening += [ach(channels, num_selected, k, stride=2) for k in (2, 3)]
    opening += [inverted_residual(channels, widths[0], k, stride=2) for k in (2, 3)]
    others: list[Candidate] = [None]
    for kernel in (3, 5, 7):
        others += [ghost(channels, expand, kernel) for expand in expansions]
        others += [
            ach(channels, num_selected, kernel),
            inverted_residual(channels, widths[1], kernel),
        ]
    return [_choice(*opening), *(_choice(*others) for _ in range(count))]


SEARCH_SPACES: dict[str, dict[str, Any]] = {
    # 15 choices; one of its tables is the architecture 'small'.
    'small': _space(
        _small_stage(64, 4, 2, 16, 3, 1),
        _small_stage(96, 4, 2, 16, 5, 5),
        _small_stage(128, 6, 6, 32, 7, 4),
    ),
    # Plain expansions are as wide as Ghost's where the stride is 2. Elsewhere they cost what ACH
    # does, as in the architecture 'small-ir'.
    'small-wide': _space(
        _wide_stage(64, 4, (2, 4), 16, (128, 128), 1),
        _wide_stage(96, 4, (2, 4), 16, (256, 160), 5),
        _wide_stage(128, 6, (4, 6), 32, (576, 416), 4),
    ),
}


def candidates_of(block: Block) -> list[Candidate]:
    """The blocks that may stand in a place of a space, at least one; None stands for nothing."""
    return block.get('choices', [block])


def first_candidate(block: Block) -> Block:
    """The first block that may stand in a place of a space; all have its channels and stride."""
    return next(filter(None, candidates_of(block)))


def describe_candidate(candidate: Candidate) -> str:
    """A short name, as 'ach-16-k5-s2': what expands, the depthwise kernel, and a stride of 2."""
    if candidate is None:
        return 'nothing'
    size = candidate.get('expand', candidate.get('num_selected', candidate.get('width')))
    size = f'x{size}' if 'expand' in candidate else size or candidate['channels']
    words = [candidate['type'], str(size), f'k{candidate["kernel"]}']
    if candidate.get('stride', 1) != 1:
        words.append(f's{candidate["stride"]}')
    if candidate.get('product_norm', 'DySoft') != 'DySoft':
        words.append(candidate['product_norm'])
    return '-'.join(words)


def find_search_space(arch: str | dict[str, Any]) -> dict[str, Any]:
    """Looks up a search space by its name, or checks a table.

    Args:
        arch: One of :data:`SEARCH_SPACES`, or a table as this module describes it.

    Returns:
        The table.

    Raises:
        TypeError: If it is neither a name nor a table.
        ValueError: If there is no such name; if a choice is empty, has candidates whose outputs
            differ in shape, or a block that is not as described; if nothing may be left of a
            stage, or there is no choice at all; names the place.
    """
    if isinstance(arch, str):
        if arch not in SEARCH_SPACES:
            raise ValueError(
                f'arch must be one of the search spaces {sorted(SEARCH_SPACES)} or a table with '
                f'choices, got {arch!r}'
            )
        return SEARCH_SPACES[arch]
    if not isinstance(arch, dict) or not {'stages', 'final_channels'} <= arch.keys():
        raise TypeError(
            f'arch must be one of the search spaces {sorted(SEARCH_SPACES)} or '
            f'dict(stages=..., final_channels=...), got {arch!r}'
        )
    channels = 3
    for index, stage in enumerate(arch['stages']):
        for place, block in enumerate(stage):
            where = f"arch['stages'][{index}][{place}]"
            _check_choice(candidates_of(block), channels, where)
            channels = first_candidate(block)['channels']
        if all(None in candidates_of(block) for block in stage):
            raise ValueError(f"nothing may be left of arch['stages'][{index}]: take a None away")
    if not any('choices' in block for stage in arch['stages'] for block in stage):
        raise ValueError(
            "arch has no block with choices: there is nothing to search, use type='HadaptiveNet'"
        )
    return arch


def _check_choice(candidates: Sequence[Candidate], in_channels: int, where: str) -> None:
    if not any(candidates):
        raise ValueError(f'{where} is an empty choice, {list(candidates)}: name at least one block')
    shapes = {}
    for candidate in candidates:
        if candidate is None:
            shapes[None] = (in_channels, 1)
        else:
            check_block(candidate, f'{where}: {dict(candidate)}')
            shapes[describe_candidate(candidate)] = (
                candidate['channels'],
                candidate.get('stride', 1),
            )
    if len(set(shapes.values())) > 1:
        found = ', '.join(
            f'{name or "nothing"}: {channels} and {stride}'
            for name, (channels, stride) in shapes.items()
        )
        raise ValueError(
            f'the outputs of the candidates of {where} differ in shape; channels and stride of '
            f'{found}'
        )


def choose_blocks(space: dict[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    """The architecture that one candidate of each choice makes.

    Args:
        space: A search space.
        indices: For each choice, in the order of the table, the place of a candidate. If there are
            fewer than choices, the stages behind the last one are left out.

    Returns:
        A table for :class:`HadaptiveNet`, plain data of its own.
    """
    pending = list(indices)
    stages = []
    for stage in space['stages']:
        blocks = []
        for block in stage:
            candidates = candidates_of(block)
            if 'choices' in block and not pending:
                return dict(stages=stages, final_channels=space['final_channels'])
            blocks.append(candidates[pending.pop(0) if 'choices' in block else 0])
        stages.append([dict(block) for block in blocks if block is not None])
    return dict(stages=stages, final_channels=space['final_channels'])
