"""The pages of the model zoo: README.md and metafile.yml of each folder of configs."""

from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from ..analysis.costs import count_costs, input_size
from ..pretraining import pretrained_options

_BEGIN = '<!-- models: written by tools/development/write_model_pages.py -->'
_END = '<!-- /models -->'
# What the names of configs call the data.
_DATA = {
    'coco': 'COCO',
    'bccd': 'BCCD',
    'shapes': 'embedded shapes',
    'in1k': 'ImageNet-1k',
    'cifar100': 'CIFAR-100',
}


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

    old = yaml.safe_load(metafile.read_text()) if metafile.exists() else {}
    title = before.partition('\n')[0].removeprefix('# ')
    collection = dict(Name=title, README=readme.relative_to(root).as_posix())
    collections = old.get('Collections', [collection])
    known = {
        model['Name']: {key: model[key] for key in ('Results', 'Weights') if key in model}
        for model in old.get('Models', [])
    }
    models, rows, command = [], [], []
    for path in sorted(folder.glob('*.py')):
        config = Config.fromfile(path)
        size, metadata = _describe(path, config)
        model = {
            'Name': path.stem,
            'In Collection': collections[0]['Name'],
            'Config': path.relative_to(root).as_posix(),
            'Metadata': metadata,
            'Results': None,
            **known.get(path.stem, {}),
        }
        models.append(model)
        rows.append(_row(model, size, config))
        if config.model.backbone.type == 'HadaptiveNet' and not command:
            options = pretrained_options(config, 'CHECKPOINT')
            command = [f'python tools/train.py {model["Config"]} --cfg-options', *options]

    block = [
        f'| config | input | parameters M | MACs G | data | epochs | {_metric(config)} |',
        '|---|---|---|---|---|---|---|',
        *rows,
        '',
        'MACs are the multiply-accumulates of convolutions and matrix products for one image; they '
        'are left out where they depend on what is found in it, or happen in operators of mmcv. '
        'Scores that nobody has measured yet are empty.',
    ]
    if command:
        block += [
            '',
            'From a pre-trained backbone ([how to get one](../pretrain/README.md)), with each of '
            'these configs that has Hadaptive-Net:',
            '',
            '```bash',
            ' \\\n    '.join(command),
            '```',
        ]
    pages = dict(Collections=collections, Models=models)
    return {
        readme: f'{before}{_BEGIN}\n\n' + '\n'.join(block) + f'\n\n{_END}{after}',
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


def _describe(path: Path, config: Config) -> tuple[str, dict[str, Any]]:
    """The size of the images, and the metadata."""
    data = [_DATA[word] for word in path.stem.split('_') if word in _DATA]
    if not data:
        raise ValueError(f'the name of {path} ends in none of {sorted(_DATA)}')
    epochs = config.train_cfg.max_epochs
    dataset = config.train_dataloader.dataset
    while 'dataset' in dataset:
        epochs *= dataset.get('times', 1)
        dataset = dataset.dataset
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    height, width = input_size(config, model)
    metadata = {
        'Training Data': data[-1],
        'Epochs': epochs,
        'Batch Size': config.auto_scale_lr.base_batch_size,
        'Parameters': sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    try:
        metadata['FLOPs'] = count_costs(model.to('meta'), height, width)[1]
    except RuntimeError as error:
        # There are no values on this device: what depends on them cannot be counted.
        if 'meta tensors' not in str(error):
            raise
    return f'{width} x {height}', metadata


def _metric(config: Config) -> str:
    """The name of the score in OpenMMLab's metafiles, given in percent."""
    return 'Top 1 Accuracy' if config.default_scope == 'mmpretrain' else 'box AP'


def _row(model: dict[str, Any], size: str, config: Config) -> str:
    metadata, results = model['Metadata'], model['Results'] or []
    macs = metadata.get('FLOPs')
    cells = [
        f'[{model["Name"]}]({Path(model["Config"]).name})',
        size,
        f'{metadata["Parameters"] / 1e6:.2f}',
        '' if macs is None else f'{macs / 1e9:.3f}',
        metadata['Training Data'],
        str(metadata['Epochs']),
        ', '.join(f'{result["Metrics"][_metric(config)]:.1f}' for result in results),
    ]
    return f'| {" | ".join(cells)} |'
