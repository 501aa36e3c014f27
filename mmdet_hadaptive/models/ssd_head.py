"""An SSD head that can predict."""

from typing import Any

from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS


@MODELS.register_module()
class PatchedSSDHead(SSDHead):
    """MMDetection's ``SSDHead``, fixed so that it can predict.

    ``SSDHead`` has no ``loss_cls``, but its base class reads it in predictions. In mmdet 3.3.0 the
    training works and the first validation fails (mmdetection issues 11063, 11305 and 11780). SSD's
    loss is a cross entropy, computed in the head itself. The added attribute says so.

    All arguments are those of ``mmdet.models.dense_heads.SSDHead``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_cls = MODELS.build(dict(type='CrossEntropyLoss', use_sigmoid=False))
