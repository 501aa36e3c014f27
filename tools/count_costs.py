"""Prints parameters and multiply-accumulates of detectors as a Markdown table."""

import argparse
from pathlib import Path

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmdet_hadaptive  # noqa: F401
from mmdet_hadaptive.complexity import count_costs, input_size


def main() -> None:
    """Counts each config at the input size of its test pipeline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', help='config files')
    args = parser.parse_args()
    print('| config | input | parameters M | MACs G | of these the backbone: M | G |')
    print('|---|---|---|---|---|---|')
    for path in args.configs:
        config = Config.fromfile(path)
        init_default_scope(config.get('default_scope', 'mmdet'))
        model = MODELS.build(config.model)
        height, width = input_size(config, model)
        cells = [Path(path).stem, f'{width} x {height}']
        for part in (model, model.backbone):
            parameters, macs = count_costs(part, height, width)
            cells += [f'{parameters / 1e6:.2f}', f'{macs / 1e9:.3f}']
        print(f'| {" | ".join(cells)} |')


if __name__ == '__main__':
    main()
