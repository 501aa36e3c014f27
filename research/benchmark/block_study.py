"""Trains classifiers whose blocks cost the same, on Tiny ImageNet, and says which is better."""

import io
import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.image import imread
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmdet_hadaptive.utils.costs import count_costs
from mmdet_hadaptive.utils.files import write_whole

from ..markdown import markdown_table
from .small_depthwise import use_small_depthwise
from .study_blocks import ContextGate, is_published, make_backbone

# Of each class this many training images are not trained on, but validated beside the 50 of the
# validation set.
_HELD_OUT = 50
_BATCH = 128
_EVAL_BATCH = 250
_MAX_SHIFT = 8
_LR, _WEIGHT_DECAY, _LABEL_SMOOTHING, _DROPOUT = 2e-3, 0.05, 0.1, 0.3
_WARM_UP = 0.05
# Training images over which the contribution of products is averaged.
_STATISTICS_IMAGES = 2000
_MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
_STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


@dataclass(frozen=True)
class StudyRun:
    """One training.

    Attributes:
        kind: One of ``KINDS``.
        classes: The number of classes of Tiny ImageNet, 1 to 200, spread evenly over its names.
        epochs: Over the training images.
        seed: The seed of weights, order and augmentation.
    """

    kind: str
    classes: int = 50
    epochs: int = 10
    seed: int = 0


class Classifier(nn.Module):
    """The released classifier with one kind of blocks: images (B, 3, H, W) to (B, classes).

    Args:
        kind: One of ``KINDS``.
        classes: How many.
    """

    def __init__(self, kind: str, classes: int) -> None:
        super().__init__()
        self.backbone = make_backbone(kind)
        use_small_depthwise(self.backbone)
        self.head = nn.Sequential(
            nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(_DROPOUT), nn.Linear(1280, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores before the softmax."""
        return self.head(self.backbone(x)[0].mean((2, 3)))


@dataclass(frozen=True)
class Split:
    """Images (N, 3, 64, 64), uint8, RGB, and labels (N,), int64."""

    images: Tensor
    labels: Tensor


def load_tiny_imagenet(root: Path, classes: int) -> tuple[Split, Split]:
    """Reads classes of Tiny ImageNet, laid out as it is distributed.

    Args:
        root: The folder with ``train``, ``val`` and ``wnids.txt``.
        classes: How many.

    Returns:
        Training images, all but the last 50 of each class; and those with the validation images.

    Raises:
        FileNotFoundError: If the folder is laid out otherwise.
        ValueError: If there are fewer classes.
    """
    names = sorted((root / 'wnids.txt').read_text().split())
    if not 1 <= classes <= len(names):
        raise ValueError(f'classes must be in 1..{len(names)} ({root}), got {classes}')
    names = [names[i * len(names) // classes] for i in range(classes)]
    lines = (root / 'val/val_annotations.txt').read_text().splitlines()
    validation = [line.split('\t')[:2] for line in lines]
    train, val = [], []
    for label, name in enumerate(names):
        files = sorted((root / 'train' / name / 'images').iterdir())
        train += [(file, label) for file in files[:-_HELD_OUT]]
        val += [(file, label) for file in files[-_HELD_OUT:]]
        val += [(root / 'val/images' / file, label) for file, n in validation if n == name]
    return _read(train), _read(val)


def train_study(
    runs: Sequence[StudyRun], root: str | Path, work_dir: str | Path
) -> list[dict[str, Any]]:
    """Trains what has no result yet; a training that was interrupted resumes.

    Args:
        runs: What to train.
        root: Tiny ImageNet (:func:`load_tiny_imagenet`).
        work_dir: Gets ``results.jsonl`` and a checkpoint of each training after each epoch.

    Returns:
        The record of each run: its attributes, ``top1`` and ``top5`` in percent, ``constant``
        (top-1 with what the products contribute to the projections replaced by its mean; None
        where products cannot be told apart), the mean training ``loss`` of the last epoch,
        ``parameters`` and ``macs`` of the backbone at 64 x 64.
    """
    work_dir = Path(work_dir)
    file = work_dir / 'results.jsonl'
    loaded: dict[int, tuple[Split, Split]] = {}
    for run in runs:
        if run in _read_results(file):
            continue
        if run.classes not in loaded:
            loaded = {run.classes: load_tiny_imagenet(Path(root), run.classes)}
        record = asdict(run) | _train(run, *loaded[run.classes], work_dir)
        # Read again: another process may have finished a run in the meantime.
        records = [*_read_results(file).values(), record]
        write_whole(''.join(json.dumps(r) + '\n' for r in records), file)
    results = _read_results(file)
    return [results[run] for run in runs]


def tabulate_study(records: Sequence[dict[str, Any]]) -> str:
    """Makes a Markdown table of kinds, a line for each number of classes and epochs.

    Args:
        records: The records that :func:`train_study` returns.

    Returns:
        Mean and sample standard deviation over the seeds of top-1, and of what it loses without
        products; parameters and multiply-accumulates of the backbone.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(tuple(record[k] for k in ('classes', 'epochs', 'kind')), []).append(
            record
        )
    rows = []
    for (classes, epochs, kind), group in groups.items():
        top1 = [record['top1'] for record in group]
        lost = [r['constant'] - r['top1'] for r in group if r['constant'] is not None]
        rows.append(
            (
                kind,
                f'{classes}, {epochs}',
                len(group),
                _spread(top1),
                _spread(lost, sign='+') if lost else '',
                f'{np.mean([record["loss"] for record in group]):.3f}',
                f'{group[0]["parameters"]:,}',
                f'{group[0]["macs"] / 1e6:.2f}',
            )
        )
    return markdown_table(
        (
            'blocks',
            'classes, epochs',
            'seeds',
            'top-1 %',
            'with a constant',
            'training loss',
            'parameters',
            'MACs M',
        ),
        rows,
    )


def _spread(values: Sequence[float], sign: str = '') -> str:
    mean = f'{np.mean(values):{sign}.1f}'
    return f'{mean} ± {np.std(values, ddof=1):.1f}' if len(values) > 1 else mean


def _read_results(file: Path) -> dict[StudyRun, dict[str, Any]]:
    lines = file.read_text().splitlines() if file.exists() else []
    return {
        StudyRun(**{field.name: record[field.name] for field in fields(StudyRun)}): record
        for record in map(json.loads, lines)
    }


def _read(entries: Sequence[tuple[Path, int]]) -> Split:
    images = [
        imread(file, channel_order='rgb')
        for file, _ in track(entries, 'reading images', transient=True)
    ]
    labels = torch.tensor([label for _, label in entries])
    return Split(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), labels)


def _train(run: StudyRun, train: Split, val: Split, work_dir: Path) -> dict[str, Any]:
    torch.manual_seed(run.seed)
    # MMEngine logs each weight that it initialises.
    logging.disable(logging.INFO)
    model = Classifier(run.kind, run.classes).to(memory_format=torch.channels_last)
    costs = count_costs(make_backbone(run.kind), 64, 64)
    logging.disable(logging.NOTSET)
    optimizer = torch.optim.AdamW(
        [
            dict(params=[p for p in model.parameters() if p.ndim > 1], weight_decay=_WEIGHT_DECAY),
            dict(params=[p for p in model.parameters() if p.ndim <= 1], weight_decay=0.0),
        ],
        lr=_LR,
    )
    steps = len(train.labels) // _BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(_cosine, total=steps * run.epochs)
    )
    checkpoint = work_dir / f'{run.kind}_{run.classes}_{run.epochs}_{run.seed}.pth'
    parts = dict(model=model, optimizer=optimizer, schedule=schedule)
    first, loss = 0, math.nan
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        first, loss = state['epoch'], state['loss']
        for name, part in parts.items():
            part.load_state_dict(state[name])
    for epoch in range(first, run.epochs):
        torch.manual_seed(1000 * run.seed + epoch)
        loss = _train_epoch(model, train, optimizer, schedule, f'{checkpoint.stem}: {epoch + 1}')
        state = {name: part.state_dict() for name, part in parts.items()}
        content = io.BytesIO()
        torch.save(state | dict(epoch=epoch + 1, loss=loss), content)
        write_whole(content.getvalue(), checkpoint)
    top1, top5 = _evaluate(model, val)
    with _products_replaced(model, train) as replaced:
        constant = _evaluate(model, val)[0] if replaced else None
    return dict(top1=top1, top5=top5, constant=constant, loss=loss, **asdict(costs))


def _cosine(step: int, total: int) -> float:
    warm = _WARM_UP * total
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


def _train_epoch(
    model: nn.Module,
    train: Split,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    title: str,
) -> float:
    model.train()
    losses = []
    batches = torch.randperm(len(train.labels)).split(_BATCH)
    for index in track(batches[: len(train.labels) // _BATCH], title):
        scores = model(_normalized(_augmented(train.images[index])))
        loss = F.cross_entropy(scores, train.labels[index], label_smoothing=_LABEL_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def _augmented(images: Tensor) -> Tensor:
    """Shifts each image by up to eight pixels, its borders reflected, and mirrors half of them."""
    count, _, height, width = images.shape
    padded = F.pad(images, (_MAX_SHIFT,) * 4, mode='reflect').permute(0, 2, 3, 1)
    shifts = torch.randint(0, 2 * _MAX_SHIFT + 1, (2, count, 1))
    rows, columns = shifts[0] + torch.arange(height), shifts[1] + torch.arange(width)
    mirrored = torch.rand(count, 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    image = torch.arange(count)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _normalized(images: Tensor) -> Tensor:
    return ((images.float() - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _evaluate(model: nn.Module, split: Split) -> tuple[float, float]:
    """Top-1 and top-5 in percent."""
    model.eval()
    hits = torch.zeros(2)
    for images, labels in zip(
        split.images.split(_EVAL_BATCH), split.labels.split(_EVAL_BATCH), strict=True
    ):
        scores = model(_normalized(images))
        found = scores.topk(min(5, scores.shape[1])).indices == labels[:, None]
        hits += torch.stack([found[:, 0].sum(), found.sum()])
    top1, top5 = (100 * hits / len(split.labels)).tolist()
    return round(top1, 2), round(top5, 2)


@contextmanager
def _products_replaced(model: nn.Module, train: Split) -> Iterator[bool]:
    """Replaces what products contribute to projections by its mean; whether there are any."""
    convs = {}
    for block in model.modules():
        if is_published(block):
            s = block.expansion.num_selected
            convs[block.projection.conv] = s * (s - 1) // 2
        elif getattr(block, 'projection', None) and getattr(block, 'num_products', 0):
            convs[block.projection.conv] = block.num_products
    gates = [module.gate for module in model.modules() if isinstance(module, ContextGate)]
    means: dict[nn.Module, list[Tensor]] = {module: [] for module in [*convs, *gates]}

    def contribution(module: nn.Module, h: Tensor, output: Tensor) -> Tensor:
        if module in gates:
            return output
        return F.conv2d(h[:, -convs[module] :], module.weight[:, -convs[module] :])

    def collect(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        means[module].append(contribution(module, inputs[0], output).mean((0, 2, 3)))

    def replace(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        mean = torch.stack(means[module]).mean(0)[:, None, None]
        return output - contribution(module, inputs[0], output) + mean

    handles = [module.register_forward_hook(collect) for module in means]
    # Spread over the classes.
    every = slice(None, None, max(len(train.labels) // _STATISTICS_IMAGES, 1))
    _evaluate(model, Split(train.images[every], train.labels[every]))
    for handle in handles:
        handle.remove()
    handles = [module.register_forward_hook(replace) for module in means]
    try:
        yield bool(means)
    finally:
        for handle in handles:
            handle.remove()
