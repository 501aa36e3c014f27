"""All networks of a search space in one, for differentiable architecture search."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_hadaptive.models.architectures import Block
from mmdet_hadaptive.models.hadaptive_net import HadaptiveNet

from .search_spaces import (
    Candidate,
    candidates_of,
    choose_blocks,
    find_search_space,
    first_candidate,
)

# What a search starts from, as the authors' and as GDAS.
_TEMPERATURE = 4.0


def _crop(stride: int, module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    """Leaves out what does not fill a step, so that odd and even kernels give maps of one size."""
    (x,) = inputs
    height, width = x.shape[-2:]
    return x[..., : height // stride * stride, : width // stride * stride]


class Choice(nn.ModuleList):
    """The candidates of a block; nothing is an ``nn.Identity``.

    Attributes:
        drawn: The candidate that is computed, and the factor of its output.
    """

    drawn: tuple[int, Tensor | None] = (0, None)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the drawn candidate alone."""
        index, factor = self.drawn
        y = self[index](x)
        return y if factor is None else y * factor.to(y.dtype)

    def __getstate__(self) -> dict[str, Any]:
        # A factor with a gradient cannot be copied. Each pass draws anew.
        return {**self.__dict__, 'drawn': (0, None)}


class HadaptiveSearchNet(HadaptiveNet):
    """:class:`HadaptiveNet` of which some blocks are one of several, to be searched.

    In training mode each forward pass draws one candidate for each choice, by a hard Gumbel softmax
    over its architecture parameters, and computes that one alone. Where the architecture
    parameters require a gradient, its output is multiplied by a number that is 1 and has the
    gradient of the softmax (straight-through); weights of candidates that were not drawn get no
    gradient. In eval mode the candidates with the largest architecture parameters are computed.

    The noise comes from a generator of its own, started from :attr:`draw_seed` in each pass: equal
    seeds draw the same in all processes, whatever other random numbers are drawn there. As Python
    decides which candidate is computed, each pass waits once for the device.

    The architecture parameters are a buffer, so that neither the optimizer of the weights nor a
    wrapper for several processes takes them for weights; who searches sets ``requires_grad`` for as
    long as a gradient is to be computed (:class:`ArchitectureSearchHook`).

    Source: arXiv 1910.04465 (GDAS), arXiv 2505.22226, section 3.4.

    Args:
        arch: One of :data:`SEARCH_SPACES`, or a table as in
            :mod:`research.search.search_spaces`.
        kwargs: Arguments of :class:`HadaptiveNet`.

    Attributes:
        logits: The architecture parameters, float32 (choices, most candidates of any), initially
            0. What stands behind the last candidate of a choice has no meaning.
        temperature: The temperature of the softmax.
        draw_seed: What the next draw follows from; it grows by 1 with each.
        drawn: For each choice the candidate of the last forward pass.
        choice_names: For each choice its place, as 'stage2.0'.
        candidates: For each choice its candidates as the table has them.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If an argument has a value outside its limits.
    """

    def __init__(self, arch: str | dict[str, Any] = 'small', **kwargs: Any) -> None:
        super().__init__(arch, **kwargs)
        self.choice_names: list[str] = []
        self.candidates: list[list[Candidate]] = []
        for name, blocks in zip(self._names, self._space['stages'], strict=False):
            for place, block in enumerate(blocks):
                if 'choices' in block:
                    self.choice_names.append(f'{name}.{place}')
                    self.candidates.append(candidates_of(block))
        self._counts = [len(candidates) for candidates in self.candidates]
        if not self._counts:
            raise ValueError(f'the stages up to out_indices={self.out_indices} have no choice')
        self.register_buffer('logits', torch.zeros(len(self._counts), max(self._counts)))
        self.temperature = _TEMPERATURE
        self.draw_seed = 0
        self.drawn: list[int] = []

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the chosen feature maps; see :meth:`HadaptiveNet.forward`."""
        self.drawn, factors = self._draw() if self.training else (self.most_probable(), None)
        choices = [module for module in self.modules() if isinstance(module, Choice)]
        for number, (choice, index) in enumerate(zip(choices, self.drawn, strict=True)):
            # It stays after the pass, because the backward pass may compute the block again.
            choice.drawn = index, None if factors is None else factors[number]
        return super().forward(x)

    def log_probabilities(self) -> Tensor:
        """Of the candidates, shaped as :attr:`logits`; -inf behind the last one of a choice."""
        counts = torch.tensor(self._counts, device=self.logits.device)
        places = torch.arange(self.logits.shape[1], device=self.logits.device)
        absent = places >= counts[:, None]
        return self.logits.float().masked_fill(absent, -torch.inf).log_softmax(dim=1)

    def most_probable(self) -> list[int]:
        """For each choice the candidate with the largest architecture parameter."""
        return self.log_probabilities().argmax(dim=1).cpu().tolist()

    def places(self) -> Iterator[tuple[list[Candidate] | None, list[nn.Module]]]:
        """All places in the order of the forward pass.

        Yields:
            The candidates of the table, None where there is no choice, and their modules.
        """
        for name in self._names:
            for place, module in enumerate(getattr(self, name)):
                if isinstance(module, Choice):
                    number = self.choice_names.index(f'{name}.{place}')
                    yield self.candidates[number], list(module)
                else:
                    yield None, [module]

    def table(self, indices: Sequence[int]) -> dict[str, Any]:
        """The architecture that candidates make.

        Args:
            indices: For each choice the place of a candidate.

        Returns:
            A table for :class:`HadaptiveNet`, up to the stages that are built here.
        """
        return choose_blocks(self._space, indices)

    def _draw(self) -> tuple[list[int], Tensor | None]:
        generator = torch.Generator().manual_seed(self.draw_seed)
        self.draw_seed += 1
        # On the CPU as the generator is, also where torch.set_default_device says otherwise.
        noise = (
            -torch.empty(self.logits.shape, device='cpu').exponential_(generator=generator).log()
        )
        perturbed = (self.log_probabilities() + noise.to(self.logits.device)) / self.temperature
        indices = perturbed.argmax(dim=1)
        if not perturbed.requires_grad:
            return indices.tolist(), None
        soft = perturbed.softmax(dim=1).gather(1, indices[:, None]).squeeze(1)
        # Exactly 1, which hard + soft - soft is not always.
        return indices.tolist(), 1 + (soft - soft.detach())

    def _find_table(self, arch: str | dict[str, Any]) -> dict[str, Any]:
        self._space = find_search_space(arch)
        # With the channels and the stride that all candidates of a choice have.
        stages = [
            [{**first_candidate(block), **block} for block in stage]
            for stage in self._space['stages']
        ]
        return self._space | dict(stages=stages)

    def _make_block(self, in_channels: int, block: Block) -> nn.Module:
        if 'choices' not in block:
            return super()._make_block(in_channels, block)
        modules = Choice()
        for candidate in candidates_of(block):
            if candidate is None:
                modules.append(nn.Identity())
                continue
            modules.append(super()._make_block(in_channels, candidate))
            stride = candidate.get('stride', 1)
            if stride > 1:
                modules[-1].register_forward_pre_hook(partial(_crop, stride))
        return modules

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Refuses weights of a network that is no search's, besides those of another space."""
        own = any(key.startswith(f'{prefix}stem.') for key in state_dict)
        if own and f'{prefix}logits' not in state_dict:
            raise ValueError(
                'the checkpoint has no architecture parameters (logits): it is of a single '
                'network, and not of a HadaptiveSearchNet'
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
