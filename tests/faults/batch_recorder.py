"""Records in each process what it trains on and what comes out, one line an event."""

import json
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class BatchRecorder(Hook):
    # After MMEngine has noted the loss, and before checkpoints are written.
    priority = 'NORMAL'

    def _write(self, runner, **event):
        with Path(runner.work_dir, f'events_{get_rank()}.jsonl').open('a') as file:
            print(json.dumps(event), file=file)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._write(
            runner,
            iteration=runner.iter,
            images=[sample.img_id for sample in data_batch['data_samples']],
            losses={name: value.item() for name, value in outputs.items()},
        )

    def after_val_epoch(self, runner, metrics=None):
        self._write(runner, metrics=metrics)
