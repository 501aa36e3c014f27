"""Draws the embedded data set, trains SSDLite-S on it, evaluates and leaves pictures."""

import os
import sys
from pathlib import Path

from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

from mmdet_hadaptive.datasets import make_shapes
from mmdet_hadaptive.report import draw_predictions, plot_curves

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
WORK_DIR = ROOT / 'work_dirs/demo'
NUM_TRAIN, NUM_VAL = 1000, 160


def main() -> None:
    """Runs the demo from the root of the repository."""
    os.chdir(ROOT)
    config = Config.fromfile(CONFIG)
    print(f'==> data set of {NUM_TRAIN} + {NUM_VAL} drawn images: {config.data_root}')
    make_shapes(config.data_root, NUM_TRAIN, NUM_VAL)

    print('==> training SSDLite with Hadaptive-Net-S, about four minutes on two cores')
    config.work_dir = str(WORK_DIR)
    runner = Runner.from_cfg(config)
    runner.train()
    metrics = runner.val_loop.run()

    checkpoint = find_latest_checkpoint(WORK_DIR)
    pictures = {name: WORK_DIR / f'{name}.png' for name in ('predictions', 'curves')}
    scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    plot_curves(scalars, pictures['curves'], 'SSDLite Hadaptive-Net-S on the embedded shapes')
    model = init_detector(config, checkpoint, device='cpu')
    draw_predictions(model, runner.val_dataloader.dataset, pictures['predictions'])

    print(
        f'\nCOCO mAP {metrics["coco/bbox_mAP"]:.3f} (mAP50 {metrics["coco/bbox_mAP_50"]:.3f}) on '
        f'{NUM_VAL} validation images\n'
        f'  predictions beside ground truth: {pictures["predictions"]}\n'
        f'  loss and mAP curves:             {pictures["curves"]}\n'
        f'  checkpoint:                      {checkpoint}\n'
        'Next: put COCO under data/coco and type\n'
        f'  {os.path.relpath(sys.executable)} tools/train.py '
        'configs/ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py'
    )


if __name__ == '__main__':
    main()
