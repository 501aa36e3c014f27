"""Networks of a search space that are trained alike: drawn by lot, and found by searches."""

import json
from collections.abc import Sequence
from pathlib import Path

from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_hadaptive.utils.files import write_whole

from ..input_size import input_size
from ..search import count_candidates, draw_network
from ..search.result import find_base, render_config


def write_random_architectures(search: Path, count: int, folder: Path) -> list[Path]:
    """Writes configs of networks that cost what a search is to find.

    Args:
        search: The config of a search with a target of multiply-accumulates. What is written
            inherits what it inherits.
        count: How many; they are drawn with the seeds 0, 1, ...
        folder: Gets a file for each, ``<detector>_random-<seed>.py``.

    Returns:
        The files.

    Raises:
        ValueError: If the target is a latency, which depends on where it is measured.
    """
    config = Config.fromfile(search)
    (target,) = (
        hook.target for hook in config.custom_hooks if hook.type == 'ArchitectureSearchHook'
    )
    if 'macs' not in target:
        raise ValueError(f'{search} asks for {dict(target)}: give it a target of macs')
    register_all_modules()
    model = MODELS.build(config.model)
    costs = count_candidates(model.backbone, *input_size(config, model))
    base, backbone = find_base(search), config.model.backbone.to_dict()
    files = []
    for seed in range(count):
        indices = draw_network(costs, target.macs, seed)
        table = model.backbone.table(indices)
        comment = f'Drawn from {search.name} with seed {seed}: {costs.total(indices):g} MACs.'
        files.append(folder / f'{search.stem.split("_")[0]}_random-{seed}.py')
        write_whole(render_config(base, backbone, table, [comment]), files[-1])
    return files


def write_found_architectures(search: Path, work_dirs: Sequence[Path], folder: Path) -> list[Path]:
    """Writes configs that train what searches have found, all by the same recipe.

    Args:
        search: The config of a search. What is written inherits what it inherits, whatever the
            networks were found by: a classifier's search, too.
        work_dirs: The work folders of searches that have ended.
        folder: Gets a file for each, ``<detector>_found-<name of the work directory>.py``.

    Returns:
        The files.

    Raises:
        FileNotFoundError: If a work directory has no result of a search.
    """
    base, backbone = find_base(search), Config.fromfile(search).model.backbone.to_dict()
    files = []
    for work_dir in work_dirs:
        found = json.loads((work_dir / 'search/architecture.json').read_text())
        comment = (
            f'Found by {Path(found["config"]).name} in {found["epochs"]} epochs with seed '
            f'{found["seed"]}.'
        )
        files.append(folder / f'{search.stem.split("_")[0]}_found-{work_dir.name}.py')
        write_whole(render_config(base, backbone, found['table'], [comment]), files[-1])
    return files
