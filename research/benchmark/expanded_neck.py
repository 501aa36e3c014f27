"""An SSD neck that expands a backbone's narrow maps, as SSDLite does on MobileNets."""

from typing import Any

from mmcv.cnn import ConvModule
from mmdet.models.necks import SSDNeck
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ExpandedSSDNeck(SSDNeck):
    """``SSDNeck`` after a 1 x 1 convolution with normalisation and activation on each map.

    Args:
        narrow_channels: Of the backbone's maps.
        in_channels: What they are expanded to.
    """

    def __init__(
        self, narrow_channels: tuple[int, ...], in_channels: tuple[int, ...], **settings: Any
    ) -> None:
        super().__init__(in_channels=in_channels, **settings)
        self.expansions = nn.ModuleList(
            ConvModule(a, b, 1, norm_cfg=settings['norm_cfg'], act_cfg=settings['act_cfg'])
            for a, b in zip(narrow_channels, in_channels, strict=True)
        )

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Expands the maps, then adds the levels of ``SSDNeck``."""
        expanded = [f(x) for f, x in zip(self.expansions, inputs, strict=True)]
        return super().forward(expanded)
