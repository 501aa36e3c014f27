"""Draws the curves of a training and the predictions of a detector."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.apis import inference_detector
from mmdet.datasets import BaseDetDataset
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData
from torch import nn

from ..utils.metrics import METRICS, PREFIX


def plot_curves(scalars: Sequence[str | Path], out_file: str | Path | BinaryIO, title: str) -> None:
    """Draws the loss over iterations and the mAP over epochs.

    Args:
        scalars: MMEngine's files ``scalars.json``, with a JSON object in each line. There is one
            file for each start of the training, in this order. Values of later files replace those
            of earlier ones.
        out_file: The picture to write.
        title: The title of the picture.
    """
    series: dict[str, dict[float, float]] = defaultdict(dict)
    for line in (line for file in scalars for line in Path(file).read_text().splitlines()):
        try:
            record: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            # A killed process or a full disk may leave half a line.
            continue
        for key in ('loss', 'loss_cls', 'loss_bbox', *METRICS):
            # An mAP of -1 means that there was no prediction.
            if key in record:
                series[key][record['step']] = max(record[key], 0)
    figure = Figure(figsize=(11, 4), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots(1, 2)
    for name, points in series.items():
        axis = axes[int(name in METRICS)]
        axis.plot(*zip(*sorted(points.items()), strict=True), '.-', label=name.removeprefix(PREFIX))
    axes[0].set(xlabel='iteration', ylabel='training loss', ylim=(0, None))
    axes[1].set(xlabel='epoch', ylabel='COCO AP on the validation images', ylim=(0, 1))
    for axis in axes:
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    figure.savefig(out_file, dpi=110)


def draw_predictions(
    model: nn.Module,
    dataset: BaseDetDataset,
    out_file: str | Path,
    num_images: int = 8,
    columns: int = 2,
    score_threshold: float = 0.3,
) -> None:
    """Draws ground truth (left) and predictions (right) of the first images of a data set.

    All images must have the same size. An incomplete last row is left out.

    Args:
        model: A detector with its config in the attribute ``cfg``, as ``init_detector`` makes it.
        dataset: The images and their annotations.
        out_file: The picture to write.
        num_images: How many images to draw.
        columns: The number of pairs in a row.
        score_threshold: The lowest score of drawn predictions, in 0..1.
    """
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dataset.metainfo
    pairs = []
    for index in range(min(num_images, len(dataset))):
        info = dataset.get_data_info(index)
        instances = info['instances']
        truth = DetDataSample(
            gt_instances=InstanceData(
                bboxes=torch.tensor([i['bbox'] for i in instances]).view(-1, 4),
                labels=torch.tensor([i['bbox_label'] for i in instances], dtype=torch.long),
            ),
            pred_instances=inference_detector(model, info['img_path']).pred_instances.cpu(),
        )
        image = cv2.cvtColor(cv2.imread(info['img_path']), cv2.COLOR_BGR2RGB)
        visualizer.add_datasample('', image, truth, pred_score_thr=score_threshold)
        pairs.append(cv2.copyMakeBorder(visualizer.get_image(), 4, 4, 4, 4, cv2.BORDER_CONSTANT))
    rows = [np.hstack(pairs[i : i + columns]) for i in range(0, len(pairs), columns)]
    rows = [row for row in rows if row.shape == rows[0].shape]
    cv2.imwrite(str(out_file), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
