"""Evaluates an exported model on a config's test data."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor

from hadaptive_runtime import Detections, ExportError, load_exported

from .images import run_pipeline
from .preprocessing import set_input_size


@MODELS.register_module()
class ExportedDetector(BaseModel):
    """Wraps an exported detector so that MMEngine can test it.

    Images are preprocessed as the metadata say. The runtime uses the CPU, with torch's number of
    threads.

    Args:
        file: A file that :func:`mmdet_hadaptive.export.export_detector` wrote.

    Attributes:
        detector: The detector in its runtime.

    Raises:
        ExportError: If the model has other outputs than detections, is damaged, or is not from this
            package.
        OSError: If the file cannot be read.
    """

    def __init__(self, file: str | Path) -> None:
        super().__init__()
        self.detector = load_exported(file, torch.get_num_threads())

    def forward(
        self,
        inputs: list[Tensor],
        data_samples: list[DetDataSample],
        mode: str = 'predict',
    ) -> list[DetDataSample]:
        """Detects objects.

        Args:
            inputs: Images after the test pipeline, each (3, H, W), uint8, BGR.
            data_samples: Their ``img_shape`` and ``scale_factor``, from the test pipeline.
            mode: 'predict', the only possible mode.

        Returns:
            The samples, with ``pred_instances`` in pixels of the original images.

        Raises:
            ExportError: If an image is larger than the model's input, or if the mode is not
                'predict'.
        """
        if mode != 'predict':
            raise ExportError(f"an exported model cannot do {mode!r}, only 'predict'")
        canvas = self.detector.preprocessing.canvas
        images = np.stack([canvas(x.permute(1, 2, 0).cpu().numpy()) for x in inputs])
        factors = np.float32([sample.scale_factor for sample in data_samples])
        found_in_each = self.detector.detect(images, factors)
        for sample, found in zip(data_samples, found_in_each, strict=True):
            _add_detections(sample, found)
        return data_samples


def _add_detections(sample: DetDataSample, found: Detections) -> None:
    height, width = sample.img_shape
    boxes = torch.from_numpy(found.boxes)
    boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))
    sample.pred_instances = InstanceData(
        bboxes=boxes / boxes.new_tensor(sample.scale_factor).repeat(2),
        scores=torch.from_numpy(found.scores),
        labels=torch.from_numpy(found.labels),
    )


def read_in_this_process(loader: dict[str, Any]) -> None:
    """Changes a loader's config so that it starts no processes.

    Forked processes would copy the locks of the runtime's threads without the threads.

    Args:
        loader: The config.
    """
    loader.update(num_workers=0, persistent_workers=False)
    loader.pop('prefetch_factor', None)


def evaluate_exported(config: Config, file: str | Path, work_dir: str | Path) -> dict[str, Any]:
    """Runs an exported model through a config's test pipeline and evaluator.

    Args:
        config: The config that the model was exported with. It is changed. Its test pipeline must
            resize to the model's input size.
        file: An exported file of any format. It may be quantised.
        work_dir: The folder of MMEngine's logs.

    Returns:
        The evaluator's metrics, such as ``coco/bbox_mAP`` in 0..1.

    Raises:
        ExportError: If the model has other outputs than detections, or was exported for other
            classes or image sizes, or if the test pipeline fails for an image.
        OSError: If a file cannot be read.
    """
    detector = load_exported(file)
    set_input_size(config, *detector.preprocessing.resize)
    config.model = dict(type='ExportedDetector', file=str(file))
    # MMEngine would load it into the model.
    config.pop('data_preprocessor', None)
    config.work_dir = str(work_dir)
    read_in_this_process(config.test_dataloader)
    # These hooks are for trainings, or copy the model.
    config.custom_hooks = []
    config.load_from, config.resume = None, False
    runner = Runner.from_cfg(config)
    dataset = runner.test_dataloader.dataset
    classes = dataset.metainfo['classes']
    if list(classes) != detector.classes:
        raise ExportError(
            f'{file} detects {", ".join(detector.classes)}; the test data has '
            f'{", ".join(classes)}: evaluate it with the config that it was exported with'
        )
    try:
        return runner.test()
    except ExportError:
        raise
    except Exception:
        # Errors of a data loader do not name the image, and each decoder raises other types.
        for index in range(len(dataset)):
            run_pipeline(config, dataset.get_data_info(index)['img_path'])
        raise
