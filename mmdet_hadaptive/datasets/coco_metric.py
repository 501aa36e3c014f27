"""COCO's metric, computed faster."""

from functools import partial
from typing import Any
from unittest.mock import patch

from mmdet.evaluation.metrics import coco_metric
from mmdet.registry import METRICS
from pycocotools.cocoeval import COCOeval

try:
    from faster_coco_eval import COCOeval_faster
except ImportError:  # pycocotools gives the same numbers, but slower.
    COCOeval_faster = None
else:

    class _FastCocoEval(COCOeval_faster):
        def summarize(self) -> None:
            # The library's own uses all detections. COCO's mAP uses 100 per image and class.
            COCOeval.summarize(self)


@METRICS.register_module()
class FastCocoMetric(coco_metric.CocoMetric):
    """``CocoMetric`` with the same numbers, computed by ``faster-coco-eval`` if it is installed.

    That package's ``init_as_pycocotools()`` replaces ``pycocotools`` in the whole process. This
    class replaces it during the computation only.

    All arguments are those of ``mmdet.evaluation.CocoMetric``. ``use_mp_eval`` uses ``pycocotools``
    in several processes instead.
    """

    def compute_metrics(
        self, results: list[tuple[dict[str, Any], dict[str, Any]]]
    ) -> dict[str, float]:
        """Computes COCO's metrics, see ``mmdet.evaluation.CocoMetric``."""
        if COCOeval_faster is None:
            return super().compute_metrics(results)
        evaluation = partial(_FastCocoEval, print_function=print)
        with patch.object(coco_metric, 'COCOeval', evaluation):
            return super().compute_metrics(results)
