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

from .errors import ExportError
from .images import run_pipeline
from .model_file import open_model
from .preprocessing import Preprocessing, set_input_size


@MODELS.register_module()
class OnnxDetector(BaseModel):
    """An exported model of mode 'nms' as a detector that MMEngine can test.

    Images are prepared as the model's metadata says. ONNX Runtime runs on the CPU, with as many
    threads as torch uses.

    Args:
        file: As :func:`mmdet_hadaptive.export.export_onnx` writes it.

    Attributes:
        classes: Names of the classes.
        preprocessing: From the metadata.

    Raises:
        ExportError: If the model is of another mode, damaged, or not from this package.
        OSError: If the file cannot be read.
    """

    def __init__(self, file: str | Path) -> None:
        super().__init__()
        self.session, metadata = open_model(file)
        if metadata['mode'] != 'nms':
            raise ExportError(
                f'{file} has the mode {metadata["mode"]!r} in its metadata: export it with mode '
                "'nms', whose outputs are detections"
            )
        self.classes: tuple[str, ...] = tuple(metadata['classes'])
        self.preprocessing = Preprocessing.from_metadata(metadata)

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
            mode: 'predict'; there is nothing else that an exported model can do.

        Returns:
            The samples, with ``pred_instances`` in pixels of the original images.

        Raises:
            ExportError: If an image is larger than the model's input, or the mode is another.
        """
        if mode != 'predict':
            raise ExportError(f"an exported model cannot do {mode!r}, only 'predict'")
        images = np.stack(
            [self.preprocessing.canvas(x.permute(1, 2, 0).cpu().numpy()) for x in inputs]
        )
        batch = self.session.get_inputs()[0].shape[0]
        step = batch if isinstance(batch, int) else len(images)
        for start in range(0, len(images), step):
            chunk = images[start : start + step]
            # A fixed batch is filled up with grey.
            padding = ((0, step - len(chunk)), (0, 0), (0, 0), (0, 0))
            outputs = self.session.run(
                ['boxes', 'scores', 'labels'],
                {self.session.get_inputs()[0].name: np.pad(chunk, padding)},
            )
            samples = data_samples[start : start + step]
            for sample, *detections in zip(
                samples, *(x[: len(chunk)] for x in outputs), strict=True
            ):
                _add_detections(sample, *map(torch.from_numpy, detections))
        return data_samples


def _add_detections(sample: DetDataSample, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
    found = labels >= 0
    height, width = sample.img_shape
    boxes = boxes[found].clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))
    sample.pred_instances = InstanceData(
        bboxes=boxes / boxes.new_tensor(sample.scale_factor).repeat(2),
        scores=scores[found],
        labels=labels[found],
    )


def evaluate_onnx(config: Config, file: str | Path, work_dir: str | Path) -> dict[str, Any]:
    """Runs an exported model through a config's test pipeline and evaluator.

    Args:
        config: The config that the model was exported with; is changed. Its test pipeline resizes
            to what the model was exported for.
        file: A model of mode 'nms', also a quantised one with the same metadata.
        work_dir: Gets MMEngine's logs.

    Returns:
        The evaluator's metrics, such as ``coco/bbox_mAP`` in 0..1.

    Raises:
        ExportError: If the model is of another mode or was made for other classes or images, or if
            an image does not pass the test pipeline.
        OSError: If a file cannot be read.
    """
    model = OnnxDetector(file)
    set_input_size(config, *model.preprocessing.resize)
    config.model = dict(type='OnnxDetector', file=str(file))
    # MMEngine would hand it to the model.
    config.pop('data_preprocessor', None)
    config.work_dir = str(work_dir)
    # They look after trainings, or copy the model.
    config.custom_hooks = []
    config.load_from, config.resume = None, False
    runner = Runner.from_cfg(config)
    dataset = runner.test_dataloader.dataset
    classes = dataset.metainfo['classes']
    if tuple(classes) != model.classes:
        raise ExportError(
            f'{file} detects {", ".join(model.classes)}; the test data has {", ".join(classes)}: '
            'evaluate it with the config that it was exported with'
        )
    try:
        return runner.test()
    except ExportError:
        raise
    except Exception:
        # Nothing that a data loader raises names the image, and each decoder raises another thing.
        for index in range(len(dataset)):
            run_pipeline(config, dataset.get_data_info(index)['img_path'])
        raise
