"""An SSD head that can predict."""

from typing import Any

from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS


@MODELS.register_module()
class PatchedSSDHead(SSDHead):
    """MMDetection's ``SSDHead``, able to predict.

    ``SSDHead`` has no ``loss_cls``, which its base class asks for whether it returns scores of
    a special kind: in mmdet 3.3.0 training works and the first validation fails (mmdetection
    issues 11063, 11305 and 11780). SSD's loss is a plain cross entropy, computed in the head
    itself; the attribute says so.

    All arguments are those of ``mmdet.models.dense_heads.SSDHead``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_cls = MODELS.build(dict(type='CrossEntropyLoss', use_sigmoid=False))
