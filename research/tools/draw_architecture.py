"""Draws the pictures of the ACH block and of the backbones from the architecture tables.

Each picture holds the table that it was drawn from as its PNG text ``Description``; a test compares
that with the code, so that a picture cannot grow old unnoticed.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from mmdet_hadaptive.models import PUBLISHED_ARCHITECTURES

DOCS = Path(__file__).resolve().parents[2] / 'docs'
# GitHub shows pictures 830 pixels wide: a unit of the drawings is one of them.
WIDTH = 830
COLORS = {'conv': '#e3e6ea', 'ghost': '#cfe3f6', 'ach': '#fbd9a5', 'final': '#e3e6ea'}
TIMES = '\N{MULTIPLICATION SIGN}'
INK, FAINT = '#1b1f24', '#8a9099'
# The four channels that stand for the selected ones.
HUES = ('#d1495b', '#2a9d8f', '#3d6fb6', '#e9a820')


def new_axes(height: int) -> Axes:
    """A white drawing of 830 x ``height`` units, y upwards."""
    figure = Figure(figsize=(WIDTH / 100, height / 100), facecolor='white')
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.axis('off')
    return axes


def save(axes: Axes, path: Path, table: object) -> None:
    """Writes the drawing, with the table that it shows."""
    metadata = {'Description': json.dumps(table), 'Software': None}
    axes.figure.savefig(path, dpi=200, metadata=metadata)


def text(axes: Axes, x: float, y: float, words: str, size: float = 8.5, **style: object) -> None:
    """Writes words, centred on a point."""
    style = dict(ha='center', va='center', color=INK, linespacing=1.25) | style
    axes.text(x, y, words, fontsize=size, **style)


def box(
    axes: Axes, x: float, y: float, width: float, height: float, words: str, color: str, **style
) -> None:
    """Draws a rounded box with words; x and y are its centre."""
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle='round,pad=0,rounding_size=4',
            facecolor=color,
            edgecolor=INK,
            linewidth=0.8,
        )
    )
    text(axes, x, y, words, **style)


def arrow(axes: Axes, *points: tuple[float, float]) -> None:
    """Draws a line through points, with a head at the last."""
    if len(points) > 2:
        axes.plot(*zip(*points[:-1], strict=True), color=INK, lw=1, solid_joinstyle='round')
    axes.annotate(
        '',
        points[-1],
        points[-2],
        arrowprops=dict(arrowstyle='-|>', color=INK, lw=1, shrinkA=0, shrinkB=0, mutation_scale=9),
    )


def cell(axes: Axes, x: float, y: float, colors: Sequence[str], side: float = 14) -> None:
    """Draws a feature map as a square, x and y its lower left corner; a product has two colours."""
    square = dict(edgecolor='white', linewidth=0.8)
    axes.add_patch(Rectangle((x, y), side, side, facecolor=colors[0], **square))
    if len(colors) == 2:
        corners = [(x, y), (x + side, y), (x + side, y + side)]
        axes.add_patch(Polygon(corners, facecolor=colors[1], linewidth=0))


def draw_block(path: Path) -> None:
    """Draws the adaptive bottleneck and, below, what its expansion does."""
    arch, stage = 'small', 3
    stages = PUBLISHED_ARCHITECTURES[arch]['stages']
    index = next(i for i, block in enumerate(stages[stage]) if block['type'] == 'ach')
    block, channels = stages[stage][index], stages[stage][index - 1]['channels']
    selected, kernel = block['num_selected'], block['kernel']
    products = selected * (selected - 1) // 2
    wide = channels + products
    axes = new_axes(400)

    text(axes, 12, 384, 'Adaptive bottleneck', 10, ha='left', weight='bold')
    words = f"channels of the first ACH block of '{arch}'"
    text(axes, 818, 384, words, 8.5, ha='right', color=FAINT)
    y = 330
    box(axes, 190, y, 130, 42, 'expansion\nACH', COLORS['ach'])
    box(
        axes, 400, y, 150, 42, f'{kernel} {TIMES} {kernel} depthwise\nBN, Hardswish', COLORS['conv']
    )
    box(axes, 610, y, 130, 42, f'1 {TIMES} 1 projection\nBN', COLORS['conv'])
    axes.add_patch(
        FancyBboxPatch(
            (712, y - 9), 18, 18, boxstyle='round,pad=0,rounding_size=9',
            facecolor='white', edgecolor=INK, linewidth=0.8,
        )
    )  # fmt: skip
    text(axes, 721, y, '+', 10)
    for start, end, words in (
        (55, 125, channels),
        (255, 325, wide),
        (475, 545, wide),
        (675, 712, block['channels']),
        (730, 790, block['channels']),
    ):
        arrow(axes, (start, y), (end, y))
        text(axes, (start + end) / 2 - 2, y + 9, str(words), 8.5)
    text(axes, 40, y, 'x', 10, style='italic')
    text(axes, 802, y, 'y', 10, style='italic')
    arrow(axes, (68, y), (68, y + 36), (721, y + 36), (721, y + 9))

    # The frame of the second drawing opens from the box of the expansion.
    for corner, end in ((125, 8), (255, 822)):
        axes.plot((corner, end), (y - 21, 284), color=FAINT, lw=0.8, ls=(0, (4, 3)))
    axes.add_patch(
        FancyBboxPatch(
            (8, 8), 814, 276, boxstyle='round,pad=0,rounding_size=6',
            facecolor='#fffaf2', edgecolor=FAINT, linewidth=0.8,
        )
    )  # fmt: skip
    text(axes, 20, 268, 'Adaptive Cross-Hadamard (ACH)', 10, ha='left', weight='bold')

    order = (5, 1, 6, 3)  # by their scores
    tones = dict(zip(order, HUES, strict=True))
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    y, side = 156, 14
    text(axes, 24, y, 'x', 10, style='italic')
    arrow(axes, (32, y), (50, y))
    box(axes, 90, y, 80, 40, f'1 {TIMES} 1 conv\nBN', COLORS['conv'])
    arrow(axes, (130, y), (154, y))
    for i in range(8):
        cell(axes, 158, y + 56 - side * (i + 1), (tones.get(i, '#c9ced6'),), side)
    text(axes, 165, y + 70, f'u: {channels} channels', 8.5)

    box(axes, 262, 46, 152, 44, 'average pool, Conv1d\none score per channel', COLORS['conv'])
    arrow(axes, (165, y - 60), (165, 46), (186, 46))
    words = f'{selected} highest scores\n(training: + Gumbel noise)'
    box(axes, 456, 46, 176, 44, words, COLORS['ach'])
    arrow(axes, (338, 46), (368, 46))
    arrow(axes, (178, y), (379, y))
    text(axes, 280, y + 10, 'gather', 8.5)
    arrow(axes, (391, 68), (391, y - 32))
    for rank, hue in enumerate(HUES):
        cell(axes, 384, y + 28 - side * (rank + 1), (hue,), side)
    text(axes, 391, y + 42, f'{selected} selected', 8.5)

    arrow(axes, (403, y), (461, y))
    text(axes, 432, y + 10, 'multiply', 8.5)
    for a, b in pairs:
        cell(axes, 452 + side * b, y + 21 - side * (a + 1), (HUES[a], HUES[b]), side)
    text(axes, 488, y + 42, f'all {products} pairs', 8.5)
    arrow(axes, (512, y), (540, y))
    box(axes, 593, y, 106, 40, 'DySoft\n(normalisation)', COLORS['ach'])
    arrow(axes, (646, y), (676, y), (676, 88), (702, 88))
    arrow(axes, (165, y + 80), (165, y + 88), (676, y + 88), (676, 188), (702, 188))
    text(axes, 430, y + 96, 'unchanged', 8.5, va='center')
    for i in range(8):
        cell(axes, 707, 244 - side * (i + 1), (tones.get(i, '#c9ced6'),), side)
    for i, (a, b) in enumerate(pairs):
        cell(axes, 707, 130 - side * (i + 1), (HUES[a], HUES[b]), side)
    text(axes, 728, 188, f'{channels} channels', 8.5, ha='left')
    text(axes, 728, 88, f'{products} products', 8.5, ha='left')
    text(axes, 714, 30, f'{wide} channels', 8.5)
    save(axes, path, block)


def describe(block: dict[str, object]) -> str:
    """What is written into the box of a block."""
    kernel = f'{block["kernel"]}{TIMES}{block["kernel"]}'
    if block['type'] == 'conv':
        return f'conv {kernel}' + ('' if block['act'] else ', no act.')
    if block['type'] == 'ghost':
        return f'Ghost {TIMES}{block["expand"]}, {kernel}'
    norm = ', BN' if block['product_norm'] == 'BN' else ''
    return f'ACH {block["num_selected"]}, {kernel}{norm}'


def draw_backbone(arch: str, path: Path) -> None:
    """Draws the stages side by side, the blocks of each below each other."""
    table = PUBLISHED_ARCHITECTURES[arch]
    final = dict(type='conv', channels=table['final_channels'], kernel=1, stride=1, act=True)
    columns = [*table['stages'], [final]]
    names = ['stem', *(f'stage {i}' for i in range(1, len(table['stages']))), 'final conv']
    step, pitch = (WIDTH - 16) / len(columns), 27
    height = 128 + pitch * max(map(len, columns))
    axes = new_axes(height)
    text(axes, 12, height - 16, f"HadaptiveNet('{arch}')", 10, ha='left', weight='bold')
    top = height - 98
    stride = 1
    for column, (name, blocks) in enumerate(zip(names, columns, strict=True)):
        x = 8 + step * (column + 0.5)
        for block in blocks:
            stride *= block.get('stride', 1)
        text(axes, x, height - 46, name, 9, va='baseline', weight='bold')
        text(axes, x, height - 63, f'stride {stride}\n{blocks[-1]["channels"]} channels', 8.5)
        for row, block in enumerate(blocks):
            y = top - pitch * row
            box(axes, x, y, step - 14, 20, describe(block), COLORS[block['type']], size=8)
            if row + 1 < len(blocks):
                arrow(axes, (x, y - 10), (x, y - pitch + 10))
        if column + 1 < len(columns):
            # From the last block, up between the columns, to the first of the next.
            right, last = x + step / 2, top - pitch * (len(blocks) - 1)
            arrow(axes, (x + step / 2 - 7, last), (right, last), (right, top), (right + 7, top))
    legend = {
        'conv': (16, f'conv k{TIMES}k, BN, Hardswish'),
        'ghost': (221, f'bottleneck, Ghost {TIMES}e, k{TIMES}k'),
        'ach': (430, f'bottleneck, ACH of s channels, k{TIMES}k (BN: not DySoft)'),
    }
    for kind, (x, words) in legend.items():
        axes.add_patch(Rectangle((x, 10), 14, 12, facecolor=COLORS[kind], ec=INK, lw=0.8))
        text(axes, x + 20, 16, words, 8.5, ha='left')
    words = 'the first block of each stage halves the side lengths'
    text(axes, 818, height - 16, words, 8.5, ha='right', color=FAINT)
    save(axes, path, table)


def main() -> None:
    """Draws all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=DOCS, help='folder of the pictures')
    out = parser.parse_args().out
    draw_block(out / 'ach_block.png')
    for arch in PUBLISHED_ARCHITECTURES:
        draw_backbone(arch, out / f'backbone_{arch}.png')


if __name__ == '__main__':
    main()
