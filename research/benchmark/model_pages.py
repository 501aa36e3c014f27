"""Renders the pages of the configs: README.md and metafile.yml of each folder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmdet_hadaptive.utils.configs import walk
from mmdet_hadaptive.utils.costs import count_costs, count_parameters

from ..input_size import input_size
from ..markdown import markdown_table

_BEGIN = '<!-- models: written by research/tools/write_model_pages.py -->'
_END = '<!-- /models -->'
# What the names of configs call the data.
_DATA = {
    'coco': 'COCO',
    'bccd': 'BCCD',
    'shapes': 'drawn shapes',
    'custom': 'your own',
    'in1k': 'ImageNet-1k',
    'cifar100': 'CIFAR-100',
    'tiny-imagenet': 'Tiny ImageNet',
}
_NOTE = '[What the columns mean](../README.md#tables)'


@dataclass(frozen=True)
class _Model:
    """A config, and what its model costs for one image of its size.

    The multiply-accumulates are None where they depend on what is in the image.
    """

    path: Path
    config: Config
    height: int
    width: int
    parameters: int
    macs: int | None

    @property
    def data(self) -> str:
        """What it is trained on, which its name tells."""
        words = [_DATA[word] for word in self.path.stem.split('_') if word in _DATA]
        if not words:
            raise ValueError(f'the name of {self.path} ends in none of {sorted(_DATA)}')
        return words[-1]

    @property
    def epochs(self) -> int:
        """How often the training sees each image."""
        dataset = self.config.train_dataloader.dataset
        return self.config.train_cfg.max_epochs * math.prod(
            node['times'] for _, node in walk(dataset) if 'times' in node and 'dataset' in node
        )

    @property
    def metric(self) -> str:
        """The name of the score in OpenMMLab's metafiles, given in percent."""
        return 'Top 1 Accuracy' if self.config.default_scope == 'mmpretrain' else 'box AP'


def render_pages(folder: Path) -> dict[Path, str]:
    """Renders the pages of a folder of configs.

    Everything about a model comes from its config, except ``Results`` and ``Weights``, which are
    kept as they are in the metafile. A README is kept outside of its two comments. Where there are
    no pages yet, new ones begin.

    Args:
        folder: The folder, two levels below the root of the repository.

    Returns:
        The text of each file.

    Raises:
        ValueError: If a README has no place for the table, or the name of a config does not tell
            its data.
    """
    readme, metafile = folder / 'README.md', folder / 'metafile.yml'
    root = folder.parents[1]
    page = readme.read_text() if readme.exists() else f'# {folder.name}\n\n{_BEGIN}\n{_END}\n'
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f'{readme} has no place for the table: add {_BEGIN!r} and {_END!r}')
    models = [_load_model(path) for path in sorted(folder.glob('*.py'))]

    old = yaml.safe_load(metafile.read_text()) if metafile.exists() else {}
    title = before.partition('\n')[0].removeprefix('# ')
    collection = dict(Name=title, README=readme.relative_to(root).as_posix())
    collections = old.get('Collections', [collection])
    measured = {model['Name']: model for model in old.get('Models', [])}
    entries = [
        _describe(model, root, collections[0]['Name'], measured.get(model.path.stem, {}))
        for model in models
    ]
    block = [_render_table(models, entries), _NOTE]
    pages = dict(Collections=collections, Models=entries)
    return {
        readme: '\n\n'.join([f'{before}{_BEGIN}', *block, f'{_END}{after}']),
        metafile: yaml.safe_dump(pages, sort_keys=False, allow_unicode=True, width=100),
    }


def render_index(configs: Path) -> str:
    """Renders model-index.yml, by which OpenMMLab's tools find the metafiles.

    Args:
        configs: The folder of all folders of configs.

    Returns:
        The text of the file.
    """
    folders = sorted({path.parent for path in configs.glob('*/*.py')})
    files = [f'{configs.name}/{folder.name}/metafile.yml' for folder in folders]
    return yaml.safe_dump({'Import': files})


def _load_model(path: Path) -> _Model:
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    height, width = input_size(config, model)
    try:
        macs = count_costs(model.to('meta'), height, width).macs
    except RuntimeError as error:
        # There are no values on this device: what depends on them cannot be counted.
        if 'meta tensor' not in str(error):
            raise
        macs = None
    return _Model(path, config, height, width, count_parameters(model), macs)


def _describe(model: _Model, root: Path, collection: str, old: dict[str, Any]) -> dict[str, Any]:
    """The entry of a metafile, with the results and weights that it had."""
    metadata = {
        'Training Data': model.data,
        'Epochs': model.epochs,
        'Batch Size': model.config.auto_scale_lr.base_batch_size,
        'Parameters': model.parameters,
    }
    if model.macs is not None:
        metadata['FLOPs'] = model.macs
    return {
        'Name': model.path.stem,
        'In Collection': collection,
        'Config': model.path.relative_to(root).as_posix(),
        'Metadata': metadata,
        'Results': None,
        **{key: old[key] for key in ('Results', 'Weights') if key in old},
    }


def _render_table(models: Sequence[_Model], entries: Sequence[dict[str, Any]]) -> str:
    rows = []
    for model, entry in zip(models, entries, strict=True):
        scores = [result['Metrics'][model.metric] for result in entry['Results'] or []]
        rows.append(
            (
                f'[{model.path.stem}]({model.path.name})',
                f'{model.width} x {model.height}',
                f'{model.parameters / 1e6:.2f}',
                '' if model.macs is None else f'{model.macs / 1e9:.3f}',
                model.data,
                model.epochs,
                ', '.join(f'{score:.1f}' for score in scores),
            )
        )
    metrics = ' or '.join(dict.fromkeys(model.metric for model in models))
    headings = ('config', 'input', 'parameters M', 'MACs G', 'data', 'epochs', metrics)
    return markdown_table(headings, rows)
