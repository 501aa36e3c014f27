"""Trainings from weights and from scratch, of several lengths."""

from pathlib import Path

from mmengine.config import Config

from ..runtime.files import write_whole

_TEXT = """\
_base_ = {base!r}

# Averages over the same part of the training.
custom_hooks = _base_.custom_hooks
custom_hooks[-1].momentum *= {stretch}
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end={epochs}, T_max={epochs})
"""
_SCRATCH = 'model = dict(backbone=dict(init_cfg=None))\n'


def write_starts(config: Path, epochs: int, folder: Path) -> tuple[Path, Path]:
    """Writes configs that train for some epochs, from scratch and from what a config names.

    They differ in nothing else. The learning rate falls to zero within the epochs, and the
    averaged weights forget faster in a shorter training.

    Args:
        config: A config over ``ssdlite_hadaptive-s-pointwise-pretrained_bccd.py``, as
            ``tools/prepare_dataset.py`` writes it.
        epochs: How long.
        folder: Gets the files, ``<name>_scratch-<epochs>e.py`` and
            ``<name>_pretrained-<epochs>e.py``.

    Returns:
        From scratch, and from weights.

    Raises:
        ValueError: If the config names no weights for the backbone.
    """
    settings = Config.fromfile(config)
    if not settings.model.backbone.get('init_cfg'):
        raise ValueError(f'{config} starts from scratch: give its backbone an init_cfg')
    stretch = settings.train_cfg.max_epochs / epochs
    text = _TEXT.format(base=str(config.resolve()), stretch=stretch, epochs=epochs)
    name = config.stem.removesuffix('_prepared')
    files = []
    for start, more in (('scratch', _SCRATCH), ('pretrained', '')):
        files.append(folder / f'{name}_{start}-{epochs}e.py')
        write_whole(text + more, files[-1])
    return tuple(files)
