"""Trains prepared data sets by several recipes, of several lengths.

Prints mean and spread over the seeds; --picture draws them. Resumes where it stopped.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from mmdet_hadaptive.utils.metrics import MAP
from research.benchmark.accuracy import Run, tabulate_comparison, train_all
from research.benchmark.prepared_data import RECIPES, data_name, draw_lengths, write_recipe


def main() -> None:
    """Writes the configs, trains them and prints a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', type=Path, nargs='+', help='configs that prepare_dataset.py wrote')
    parser.add_argument(
        '--recipes',
        nargs='+',
        choices=RECIPES,
        default=['scratch', 'pretrained'],
        help='the longest training by the first is what the others are compared with',
    )
    parser.add_argument('--epochs', type=int, nargs='+', default=[4, 7, 14])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/recipes'))
    parser.add_argument('--jobs', type=int, default=1, help='trainings at the same time')
    parser.add_argument(
        '--fast-layers', action='store_true', help='backbones train in bfloat16, on a CPU only'
    )
    parser.add_argument('--picture', type=Path, metavar='FILE', help='mAP over the epochs')
    args = parser.parse_args()
    folder, lengths = args.work_dir / 'configs', sorted(args.epochs)
    configs = {
        (data, recipe, n): write_recipe(data, recipe, n, folder, args.fast_layers)
        for data in args.data
        for n in lengths
        for recipe in args.recipes
    }
    runs = [Run(file, seed) for seed in args.seeds for file in configs.values()]
    results = train_all(runs, args.work_dir, args.jobs)
    for data in args.data:
        names = [file.stem for (of, _, _), file in configs.items() if of == data]
        same_data = [result for result in results if result['config'] in names]
        print(tabulate_comparison(same_data, names[-len(args.recipes)]), end='\n\n')
    if args.picture:
        scores = defaultdict(list)
        for result in results:
            scores[result['config']].append(result[MAP])
        draw_lengths(
            {
                data_name(data): {
                    recipe: {n: scores[configs[data, recipe, n].stem] for n in lengths}
                    for recipe in args.recipes
                }
                for data in args.data
            },
            args.picture,
        )


if __name__ == '__main__':
    main()
