"""Draws the embedded data set, trains SSDLite-S on it, evaluates it and draws pictures."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.datasets import BaseDetDataset
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.structures import InstanceData
from torch import nn

from mmdet_hadaptive.datasets import make_shapes
from mmdet_hadaptive.engine.training_report import plot_curves
from mmdet_hadaptive.utils.metrics import MAP, MAP_50

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
WORK_DIR = Path('work_dirs/demo')


def main(num_train: int = 1000, num_val: int = 160, max_epochs: int | None = None) -> None:
    """Runs the demo in the current folder. Data: data/shapes. Results: work_dirs/demo.

    Args:
        num_train: The number of training images.
        num_val: The number of validation images.
        max_epochs: Shortens the training.
    """
    config = Config.fromfile(CONFIG)
    print(f'==> data set of {num_train} + {num_val} drawn images: {config.data_root}')
    make_shapes(config.data_root, num_train, num_val)

    print('==> training SSDLite with Hadaptive-Net-S, five to ten minutes on two cores')
    config.work_dir = str(WORK_DIR)
    config.train_cfg.max_epochs = max_epochs or config.train_cfg.max_epochs
    runner = Runner.from_cfg(config)
    runner.train()

    checkpoint = find_latest_checkpoint(WORK_DIR)
    mean_ap, ap_50 = (
        runner.message_hub.get_scalar(f'val/{metric}').current() for metric in (MAP, MAP_50)
    )
    pictures = {name: WORK_DIR / f'{name}.png' for name in ('predictions', 'curves')}
    scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    plot_curves([scalars], pictures['curves'], 'SSDLite Hadaptive-Net-S on the embedded shapes')
    model = init_detector(config, checkpoint, device='cpu')
    draw_predictions(model, runner.val_dataloader.dataset, pictures['predictions'])

    page = WORK_DIR / 'page'
    options = ['--format', 'web']
    export = [sys.executable, ROOT / 'tools/export.py', CONFIG, checkpoint, page, *options]
    serve = [sys.executable, '-m', 'http.server', '-d', page]
    coco = CONFIG.with_name('ssdlite_hadaptive-s_8xb24-600e_coco.py')
    command = [sys.executable, ROOT / 'tools/train.py', coco]
    print(
        f'\nCOCO mAP {mean_ap:.3f} (mAP50 {ap_50:.3f}) on '
        f'{num_val} validation images\n'
        f'  predictions beside ground truth: {pictures["predictions"]}\n'
        f'  loss and mAP curves:             {pictures["curves"]}\n'
        f'  checkpoint:                      {checkpoint}\n'
        'Next: see it in the browser, at http://localhost:8000 (needs requirements-export.txt)\n'
        f'  {" ".join(map(os.path.relpath, export))}\n'
        f'  {" ".join(map(os.path.relpath, serve))}\n'
        'or put COCO under data/coco and type\n'
        f'  {" ".join(map(os.path.relpath, command))}'
    )


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


if __name__ == '__main__':
    main()
