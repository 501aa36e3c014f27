"""Draws the embedded data set, trains SSDLite-S on it, evaluates it and draws pictures."""

import os
import sys
from pathlib import Path

from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

from mmdet_hadaptive.datasets import make_shapes
from mmdet_hadaptive.engine.report import draw_predictions, plot_curves
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


if __name__ == '__main__':
    main()
