"""Layers of fused models. Each computes the same as a trained layer in eval mode."""

import torch
from torch import Tensor, nn

from ..layers import AdaptiveCrossHadamard, DySoft


class SelectedProducts(nn.Module):
    """Computes :class:`AdaptiveCrossHadamard` in eval mode, except for a scale of its products.

    It returns (B, C + P', H, W): the channels of the folded pointwise convolution, then for each
    pair ``f(z_i z_j) + shift``. Multiplied by ``scale``, these are the layer's. The scale goes into
    the kernel of the following depthwise convolution, which is linear in each channel. (The shift
    cannot go there, because the padding at the borders has none.)

    Args:
        ach: The layer. Its first normalisation is folded into the pointwise convolution. Its
            products are normalised by :class:`DySoft` or a batch normalisation.
        multiple: C + P' is rounded up to a multiple of this. The additional products repeat the
            first ones, with the scale 0.

    Attributes:
        out_channels: C + P'.
        scale: Shape (C + P',).
    """

    def __init__(self, ach: AdaptiveCrossHadamard, multiple: int) -> None:
        super().__init__()
        channels = ach.pointwise.out_channels
        self.out_channels = -(-ach.out_channels // multiple) * multiple
        self.num_selected = ach.num_selected
        self.pointwise = ach.pointwise
        self.scorer = None if ach.scorer is None else _pooled_scorer(ach)
        first, second = torch.triu_indices(
            self.num_selected, self.num_selected, 1, device=ach.pointwise.weight.device
        )
        surplus = self.out_channels - ach.out_channels
        nothing = first.new_zeros(surplus)
        self.register_buffer('first', torch.cat([first, nothing]), persistent=False)
        self.register_buffer('second', torch.cat([second, nothing]), persistent=False)

        norm = ach.product_norm
        if isinstance(norm, DySoft):
            # w (a q) / (1 + |a q|) + b = sign(a) w (q / (1 / |a| + |q|) + b / (sign(a) w))
            alpha = norm.alpha.detach().double()
            weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
            scale = weight * alpha.sign()
            knee = 1 / alpha.abs()
            self.register_buffer('knee', knee.to(norm.alpha.dtype))
        else:
            scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
            bias = norm.bias.detach().double() - norm.running_mean.double() * scale
            self.knee = None
        # A smaller scale is below the rounding error of the bias in single precision.
        smallest = (bias.abs() * 1e-7).clamp_min(1e-30)
        scale = torch.where(scale.abs() < smallest, smallest, scale)
        ones = scale.new_ones(channels)
        self.scale = nn.functional.pad(torch.cat([ones, scale]), (0, surplus)).to(
            ach.pointwise.weight
        )
        shift = nn.functional.pad(bias / scale, (0, surplus))
        self.register_buffer('shift', shift.to(ach.pointwise.weight.dtype).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C + P', H, W)."""
        u = self.pointwise(x)
        channels = u.shape[1]
        if self.scorer is None:
            selected = u[:, : self.num_selected]
        else:
            chosen = self.scorer(x).topk(self.num_selected, dim=1).indices
            # Copies of whole planes are cheaper than a gather of single values.
            images = torch.arange(u.shape[0], device=u.device)[:, None]
            selected = u.flatten(0, 1)[images * channels + chosen]
        products = selected.index_select(1, self.first).mul_(selected.index_select(1, self.second))
        if self.knee is not None:
            products = products.div_(products.abs().add_(self.knee))
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return torch.cat([u, products + self.shift], dim=1)
        # Without gradients, the last operation works in place.
        y = torch.empty(
            (len(u), self.out_channels, *u.shape[2:]),
            dtype=u.dtype,
            device=u.device,
            memory_format=torch.channels_last,
        )
        y[:, :channels] = u
        torch.add(products, self.shift, out=y[:, channels:])
        return y


class SplitDepthwise(nn.Module):
    """Concatenates the activated outputs of two depthwise convolutions of one map.

    Args:
        primary: The convolution for the first channels.
        cheap: The convolution for the other channels.
        act: The activation.
    """

    def __init__(self, primary: nn.Module, cheap: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.primary = primary
        self.cheap = cheap
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, 2 C, H', W')."""
        # ONNX Runtime fuses an activation with its convolution if each has its own.
        return torch.cat([self.act(self.primary(x)), self.act(self.cheap(x))], dim=1)


def _pooled_scorer(ach: AdaptiveCrossHadamard) -> nn.Sequential:
    """Computes the scores from the mean of the layer's input.

    The mean, the pointwise convolution and the scorer's convolution are linear. So the two
    convolutions become one matrix.
    """
    weight = ach.pointwise.weight.detach()
    channels = weight.shape[0]
    columns = torch.cat([weight.flatten(1), ach.pointwise.bias.detach()[:, None]], dim=1).double()
    kernel = ach.scorer.conv
    mixed = (
        nn.functional.conv1d(
            columns.t().unsqueeze(1), kernel.weight.detach().double(), padding=kernel.padding
        )
        .squeeze(1)
        .t()
    )
    linear = nn.Linear(channels, channels).to(weight)
    with torch.no_grad():
        linear.weight.copy_(mixed[:, :-1])
        linear.bias.copy_(mixed[:, -1])
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
