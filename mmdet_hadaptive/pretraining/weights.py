"""Finds the weights that come with the package by their names."""

from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader

from ..utils.safe_loading import UnreadableCheckpointError

SCHEME = 'hadaptive://'
_FOLDER = Path(__file__).parents[1] / 'weights'


def pretrained_checkpoint(name: str) -> str:
    """Finds a file of weights that comes with the package.

    It holds ``dict(meta, state_dict)`` in plain data (``weights_only=True``). The weights of
    convolutions and linear layers are in float16. A module of float32 that loads them stays
    float32. In configs, and wherever MMEngine takes a checkpoint, ``hadaptive://NAME`` means this
    file.

    Args:
        name: A name that docs/weights.md lists, such as 'ssdlite_small-ir_bccd'.

    Returns:
        The path.

    Raises:
        UnreadableCheckpointError: If there are no such weights. It names all that exist.
    """
    file = _FOLDER / f'{name}.pth'
    if not file.is_file():
        names = ', '.join(sorted(path.stem for path in _FOLDER.glob('*.pth')))
        raise UnreadableCheckpointError(
            f'the weights that come with the package are {names}; got {name!r}'
        )
    return str(file)


def distilled_weights(arch: str) -> str | None:
    """Returns the weights to start a detector from.

    Args:
        arch: One of ``ARCHITECTURES``.

    Returns:
        The checkpoint for ``init_cfg``, ``hadaptive://ARCH_distilled``. None if the package has no
        such weights. Their epsilon of batch normalisation is 1e-5.
    """
    name = f'{arch}_distilled'
    return SCHEME + name if (_FOLDER / f'{name}.pth').is_file() else None


def register_scheme() -> None:
    """Lets MMEngine load ``hadaptive://NAME`` as :func:`pretrained_checkpoint` finds it."""

    # MMEngine logs a part of the name.
    def load_from_hadaptive(filename: str, map_location: Any = None) -> Any:
        file = pretrained_checkpoint(filename.removeprefix(SCHEME))
        return torch.load(file, map_location=map_location, weights_only=True)

    CheckpointLoader.register_scheme(prefixes=SCHEME, loader=load_from_hadaptive, force=True)
