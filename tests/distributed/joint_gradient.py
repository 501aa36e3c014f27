"""Two processes with two images each against one process with all four."""

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmdet_hadaptive.layers import AdaptiveCrossHadamard
from mmdet_hadaptive.models import HadaptiveNet
from mmdet_hadaptive.ops import selection

PER_PROCESS = 2
DRAWN_NOISE = selection.gumbel_noise


def build(images):
    """The small network in float64, everywhere with the same weights, and noise by image."""
    torch.manual_seed(0)
    selection.gumbel_noise = DRAWN_NOISE
    net = HadaptiveNet(
        'small', out_indices=(3, 4), norm_eval=True, norm_cfg=dict(type='BN', momentum=1.0)
    )
    net.init_weights()
    # Statistics of real activations, so that these do not vanish on their way.
    nn.Module.train(net)
    net(torch.randn(8, 3, 96, 96))
    layers = iter(range(1000))

    def noise(scores):
        generator = torch.Generator().manual_seed(next(layers))
        table = torch.randn(2 * PER_PROCESS, scores.shape[1], generator=generator)
        return table[images].to(scores)

    selection.gumbel_noise = noise
    # In float32 the order of sums alone makes a difference of 2e-6.
    return net.train().double()


def loss_of(maps):
    return sum(m.square().mean() for m in maps)


def temperatures(net):
    layers = [m for m in net.modules() if isinstance(m, AdaptiveCrossHadamard)]
    return torch.stack([torch.stack([m.last_grad_norm, m.temperature]) for m in layers])


def compare():
    x = torch.randn(2 * PER_PROCESS, 3, 96, 96, generator=torch.Generator().manual_seed(7)).double()
    joint = build(slice(None))
    loss_of(joint(x)).backward()

    rank = distributed.get_rank()
    mine = slice(rank * PER_PROCESS, (rank + 1) * PER_PROCESS)
    net = build(mine)
    wrapped = DistributedDataParallel(net)
    loss_of(wrapped(x[mine])).backward()

    worst = 0.0
    for expected, actual in zip(joint.parameters(), net.parameters(), strict=True):
        scale = expected.grad.abs().max()
        worst = max(worst, ((expected.grad - actual.grad).abs().max() / scale).item())
    norms = (temperatures(joint) / temperatures(net) - 1).abs().max().item()
    distributed.barrier()
    print(f'rank {rank}: gradients {worst:.1e}, norms {norms:.1e}', flush=True)
    assert worst < 1e-6, worst
    assert norms < 1e-5, norms


def main():
    distributed.init_process_group('gloo')
    compare()
    # After the wrapper has been freed: its reducer would free the group while it holds Python's
    # lock, for which gloo's thread may be waiting.
    distributed.destroy_process_group()


if __name__ == '__main__':
    main()
