"""Hadaptive-Net as an MMDetection backbone."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..layers import (
    AdaptiveBottleneck,
    AdaptiveCrossHadamard,
    ConvNormAct,
    GhostExpansion,
)
from .architectures import ARCHITECTURES, Block, check_ach_cfg, find_architecture
from .norms import FixedRunningStatistics, make_norm_layer, make_product_norm


class HadaptiveNet(BaseModule):
    """The backbone of Hadaptive-Net.

    Index 0 is the stem (stride 2), 1 to n are the stages, n + 1 is the final 1x1 convolution (n is
    4 for small and medium, 5 for large). Layers behind the last chosen index are not built, so all
    parameters have gradients.

    Source: arXiv 2505.22226 v2, architecture tables.

    Args:
        arch: 'small', 'medium' or 'large' are the paper's networks. 'small-ir', 'medium-ir' and
            'large-ir' have the same costs and no products. Or a table, see
            :mod:`mmdet_hadaptive.models.architectures`.
        out_indices: The indices of the outputs, in rising order.
        frozen_stages: The stem and the stages up to this index stay in eval mode and get no
            gradients. -1 freezes nothing.
        norm_eval: Whether batch normalisations stay in eval mode.
        with_cp: Whether the backward pass recomputes blocks instead of storing their activations.
            The recomputation repeats the random selection and does not change running statistics.
            ``torch.compile`` does not compile these blocks.
        norm_cfg: The normalisation, as for mmcv's ``build_norm_layer``.
        ach_cfg: Arguments of all :class:`AdaptiveCrossHadamard` layers, for ablations:
            ``straight_through``, ``selection``, ``adapt_temperature``, and ``product_norm``
            ('DySoft' or 'BN'), which replaces the architecture's.
        init_cfg: The initialisation, as for mmengine's ``BaseModule``. The default is Xavier-normal
            convolutions, as in the authors' release.

    Attributes:
        out_channels: The number of channels of each output.
        out_strides: The stride of each output, in pixels of the input.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If an argument has a value outside its limits.
    """

    def __init__(
        self,
        arch: str | dict[str, Any] = 'small',
        out_indices: Sequence[int] = (2, 3, 4),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        norm_cfg: dict[str, Any] | None = None,
        ach_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = [
                dict(type='Xavier', layer='Conv2d', distribution='normal'),
                dict(type='Constant', layer=['_BatchNorm', 'GroupNorm'], val=1),
            ]
        super().__init__(init_cfg)
        table = self._find_table(arch)
        stages = table['stages']
        last = len(stages)
        self.arch = arch
        self.out_indices = _checked_indices(out_indices, last)
        if frozen_stages not in range(-1, self.out_indices[-1] + 1):
            raise ValueError(
                f'frozen_stages must be in -1..{self.out_indices[-1]} (the last of out_indices), '
                f'got {frozen_stages!r}'
            )
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self._norm_layer = make_norm_layer(norm_cfg)
        self._ach_cfg = check_ach_cfg(ach_cfg)

        channels, stride = 3, 1
        self.out_channels: tuple[int, ...] = ()
        self.out_strides: tuple[int, ...] = ()
        self._names: list[str] = []
        for index in range(self.out_indices[-1] + 1):
            if index == last:
                final = dict(
                    type='conv', channels=table['final_channels'], kernel=1, stride=1, act=True
                )
                name, blocks = 'final_conv', [final]
            else:
                name, blocks = f'stage{index}' if index else 'stem', stages[index]
            modules = []
            for block in blocks:
                modules.append(self._make_block(channels, block))
                channels = block['channels']
                stride *= block.get('stride', 1)
            self.add_module(name, _Stage(modules, with_cp))
            self._names.append(name)
            if index in self.out_indices:
                self.out_channels += (channels,)
                self.out_strides += (stride,)
        self._total_stride = stride
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the chosen feature maps.

        Args:
            x: Images, shape (B, 3, H, W), floating dtype. H and W are at least the total stride.

        Returns:
            A map (B, out_channels, H', W') for each of ``out_indices``. H' is H divided by the
            stride, rounded down at each halving. (Odd kernels in a table round up.)

        Raises:
            ValueError: If the images are smaller than the total stride.
        """
        if min(x.shape[-2:]) < self._total_stride:
            raise ValueError(
                f'the input is {x.shape[-2]} x {x.shape[-1]} pixels; this backbone has a total '
                f'stride of {self._total_stride} and needs at least that many in both '
                'directions: resize or pad the images'
            )
        outputs = []
        for index, name in enumerate(self._names):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'HadaptiveNet':
        """Sets the mode. Frozen stages, and norms with ``norm_eval``, stay in eval mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        for name in self._names[: self.frozen_stages + 1]:
            getattr(self, name).eval().requires_grad_(False)

    def _find_table(self, arch: str | dict[str, Any]) -> dict[str, Any]:
        return find_architecture(arch)

    def _make_block(self, in_channels: int, block: Block) -> nn.Module:
        kind, channels, kernel = block['type'], block['channels'], block['kernel']
        norm_layer = self._norm_layer
        if kind == 'conv':
            return ConvNormAct(
                in_channels,
                channels,
                kernel,
                block['stride'],
                act=block['act'],
                norm_layer=norm_layer,
            )
        if kind == 'ghost':
            expansion = GhostExpansion(in_channels, in_channels * block['expand'], norm_layer)
        elif kind == 'inverted_residual':
            expansion = ConvNormAct(in_channels, block['width'], 1, norm_layer=norm_layer)
        else:
            options = dict(product_norm=block['product_norm']) | self._ach_cfg
            product_norm = make_product_norm(options.pop('product_norm'), norm_layer)
            expansion = AdaptiveCrossHadamard(
                in_channels, block['num_selected'], product_norm, norm_layer, **options
            )
        return AdaptiveBottleneck(
            in_channels, channels, expansion, kernel, block.get('stride', 1), norm_layer
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Refuses weights of another architecture, and skips a classifier's last convolution.

        MMEngine would load the matching weights and only log the others.
        """
        own = self.state_dict()
        # The checkpoint may be for other parts of the detector.
        if not prefix and state_dict and not own.keys() & state_dict.keys():
            raise ValueError(_describe_foreign(self, state_dict))
        wrong = [
            name
            for name, value in own.items()
            if prefix + name in state_dict and state_dict[prefix + name].shape != value.shape
        ]
        if wrong:
            raise ValueError(_describe_misfit(self, state_dict, prefix, wrong))
        if 'final_conv' not in self._names:
            # Otherwise each detector that starts from a classifier would print a warning.
            for key in [key for key in state_dict if key.startswith(f'{prefix}final_conv.')]:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class _Stage(nn.Sequential):
    """Blocks in turn. With ``with_cp`` the backward pass recomputes their activations."""

    def __init__(self, blocks: Sequence[nn.Module], with_cp: bool) -> None:
        super().__init__(*blocks)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = _checkpoint(block, x) if self.with_cp and self.training else block(x)
        return x


# A compiled graph cannot take these contexts. Without them, running statistics would change twice.
@torch.compiler.disable
def _checkpoint(block: nn.Module, x: Tensor) -> Tensor:
    contexts = partial(_checkpoint_contexts, block)
    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


def _checkpoint_contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Returns the contexts of the first forward pass and of the recomputation."""
    return nullcontext(), FixedRunningStatistics(block)


def _describe_foreign(net: HadaptiveNet, state_dict: Mapping[str, Tensor]) -> str:
    """Describes a checkpoint without any weight of the backbone."""
    if any(key.startswith('backbone.') for key in state_dict):
        remedy = (
            "It is a whole detector's: use init_cfg=dict(type='Pretrained', checkpoint=..., "
            "prefix='backbone.')"
        )
    else:
        remedy = 'Use a checkpoint of this backbone, or name the prefix of its keys'
    return (
        f'the checkpoint has no weight of {type(net).__name__}; its first is '
        f'{next(iter(state_dict))!r}. {remedy}'
    )


def _describe_misfit(
    net: HadaptiveNet, state_dict: Mapping[str, Tensor], prefix: str, wrong: Sequence[str]
) -> str:
    """Names a checkpoint's weights with other shapes, and its arch."""
    arch = net.arch if isinstance(net.arch, str) else 'custom'
    stages = {
        name.removeprefix(prefix): value.shape
        for name, value in state_dict.items()
        if name.startswith(f'{prefix}stage')
    }
    matches = [name for name in ARCHITECTURES if _has_stages(name, stages)]
    hint = f"arch='{matches[0]}'" if matches else 'the arch it was trained with'
    first = wrong[0]
    return (
        f"the checkpoint does not fit {type(net).__name__}(arch='{arch}'): {len(wrong)} tensors "
        f'differ in shape, first {prefix}{first}: {tuple(state_dict[prefix + first].shape)} in '
        f'the checkpoint, {tuple(net.state_dict()[first].shape)} here. Use a checkpoint of this '
        f'arch, or build the backbone with {hint}.'
    )


def _has_stages(arch: str, shapes: Mapping[str, torch.Size]) -> bool:
    """Returns whether all tensors of a checkpoint's stages belong to an architecture."""
    net = HadaptiveNet(arch, out_indices=(len(ARCHITECTURES[arch]['stages']),))
    own = {name: value.shape for name, value in net.state_dict().items()}
    return all(own.get(name) == shape for name, shape in shapes.items())


def _checked_indices(out_indices: Sequence[int], last: int) -> tuple[int, ...]:
    if isinstance(out_indices, str) or not isinstance(out_indices, Sequence):
        raise TypeError(f'out_indices must be a sequence of int, got {out_indices!r}')
    indices = tuple(out_indices)
    if (
        not indices
        or any(index not in range(last + 1) for index in indices)
        or list(indices) != sorted(set(indices))
    ):
        raise ValueError(
            f'out_indices must be rising and in 0..{last} (0 the stem, {last} the final '
            f'convolution), got {out_indices!r}'
        )
    return indices
