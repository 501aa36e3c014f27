"""Shows which channels a trained model selects and multiplies, for an image or many."""

import argparse
from pathlib import Path

from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config, DictAction
from rich.progress import track

from hadaptive_runtime.images import IMAGE_SUFFIXES
from research.analysis.selection_plots import draw_channels, draw_feature_maps, draw_pairs
from research.analysis.selection_statistics import adaptive_layers, collect_statistics
from research.markdown import markdown_table


def main() -> None:
    """Draws the pictures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--img', type=Path, required=True, help='an image, or a folder of them')
    parser.add_argument('--out-dir', type=Path, default=Path('selection'))
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    images = [args.img]
    if args.img.is_dir():
        images = sorted(p for p in args.img.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images or not images[0].is_file():
        parser.error(f'--img {args.img} is neither an image nor a folder with images')

    config = Config.fromfile(args.config)
    model = init_detector(config, args.checkpoint, device=args.device, cfg_options=args.cfg_options)
    layers = adaptive_layers(model)
    first = []
    handle = model.backbone.register_forward_pre_hook(lambda module, args: first.append(args[0]))
    inference_detector(model, str(images[0]))
    handle.remove()
    with collect_statistics(layers) as statistics:
        for path in track(images, 'reading images', transient=True):
            inference_detector(model, str(path))

    args.out_dir.mkdir(parents=True, exist_ok=True)
    channels = {name: counts.channel_frequencies[None] for name, counts in statistics.items()}
    pairs = {name: counts.pair_frequencies for name, counts in statistics.items()}
    where = f'{len(images)} image{"s" * (len(images) > 1)} of {args.img}'
    draw_channels(channels, args.out_dir / 'channels.png', f'Selected channels, {where}', '')
    draw_pairs(pairs, args.out_dir / 'pairs.png', f'Selected pairs of channels, {where}')
    files = draw_feature_maps(model.backbone, first[0], args.out_dir)

    rows = []
    for name, counts in statistics.items():
        values = counts.scalars()
        total = len(counts.pair_counts)
        rows.append(
            (
                name,
                f'{layers[name].temperature:.3f}',
                f'{values["entropy"]:.3f}',
                f'{values["effective_channels"]:.1f} of {total}',
                f'{values["effective_pairs"]:.1f} of {total * (total - 1) // 2}',
            )
        )
    headings = ('layer', 'temperature', 'entropy', 'channels in use', 'pairs in use')
    print(f'{where}\n\n{markdown_table(headings, rows)}')
    print(
        '\n' + '\n'.join(str(p) for p in (args.out_dir / n for n in ('channels.png', 'pairs.png')))
    )
    print('\n'.join(map(str, files)))


if __name__ == '__main__':
    main()
