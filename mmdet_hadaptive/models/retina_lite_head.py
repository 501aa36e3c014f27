"""A RetinaNet head of depthwise separable convolutions."""

from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RetinaSepBNHead
from mmdet.registry import MODELS
from torch import nn


@MODELS.register_module()
class RetinaLiteHead(RetinaSepBNHead):
    """``RetinaSepBNHead`` with every 3x3 convolution split into depthwise and pointwise.

    It changes RetinaNet as SSDLite changes SSD (arXiv 1801.04381, section 6.2). It has
    ``stacked_convs`` separable layers, then a depthwise convolution and a pointwise prediction. The
    levels share convolutions. Each level has its own normalisations.

    All arguments are those of ``mmdet.models.dense_heads.RetinaSepBNHead``.
    """

    def _init_layers(self) -> None:
        self.cls_convs = nn.ModuleList(self._tower() for _ in range(self.num_ins))
        self.reg_convs = nn.ModuleList(self._tower() for _ in range(self.num_ins))
        for towers in (self.cls_convs, self.reg_convs):
            for tower in towers[1:]:
                for layer, first in zip(tower, towers[0], strict=True):
                    layer.conv = first.conv
        self.retina_cls = nn.Conv2d(
            self.feat_channels, self.num_base_priors * self.cls_out_channels, 1
        )
        self.retina_reg = nn.Conv2d(self.feat_channels, self.num_base_priors * 4, 1)

    def _tower(self) -> nn.ModuleList:
        layers = []
        channels = self.in_channels
        for _ in range(self.stacked_convs):
            layers += [
                self._conv(channels, channels, 3, groups=channels),
                self._conv(channels, self.feat_channels, 1),
            ]
            channels = self.feat_channels
        layers.append(self._conv(channels, channels, 3, groups=channels))
        return nn.ModuleList(layers)

    def _conv(
        self, in_channels: int, out_channels: int, kernel: int, groups: int = 1
    ) -> ConvModule:
        return ConvModule(
            in_channels,
            out_channels,
            kernel,
            padding=kernel // 2,
            groups=groups,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
        )
