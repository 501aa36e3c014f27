"""Shows what a trained detector owes to its products of channels and to their selection."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mmengine.config import Config, DictAction
from rich.progress import track

from mmdet_hadaptive.export.pytorch_evaluation import collect_on_training_images, make_evaluation
from mmdet_hadaptive.utils.detectors import load_detector
from mmdet_hadaptive.utils.files import write_whole
from research.analysis.product_contribution import measure_products
from research.markdown import markdown_table


def main() -> None:
    """Prints the mAP on the validation data with products and selection taken away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument(
        '--num-images', type=int, default=100, help='training images for the means, default 100'
    )
    parser.add_argument('--out', type=Path, help='a JSON file for the figures')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options)
        # Unlike init_detector, it refuses weights that do not fit.
        model = load_detector(config, args.checkpoint)[0].to(args.device)
        statistics = collect_on_training_images(model, config, args.num_images)
        evaluate = make_evaluation(config)
        metric = evaluate(model)
        measured = [
            *track(
                measure_products(model, statistics, evaluate),
                'evaluating',
                total=len(statistics) + 1,
                transient=True,
            )
        ]
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from error

    def cell(value: float | None) -> str:
        return '' if value is None else f'{value:.3f}'

    headings = ('layer', 'share', 'constant', 'random', 'frozen')
    rows = [
        (row.layer, *map(cell, (row.share, row.constant, row.random, row.frozen)))
        for row in measured
    ]
    print(f'mAP {metric:.3f}; with the products of a layer replaced by a constant, with random')
    print('channels for each image, and with the same channels for all images:\n')
    print(markdown_table(headings, rows))
    if args.out:
        content = dict(mAP=metric, products=[asdict(row) for row in measured])
        write_whole(json.dumps(content, indent=1), args.out)


if __name__ == '__main__':
    main()
