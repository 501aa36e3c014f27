"""Trains with many processes, kills one of them within an epoch, and resumes.

One epoch of drawn images, once without interruption and once killed and resumed. Every image must
be trained on once in both; the losses of every process and iteration, the weights and the mAP must
be bitwise the same.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from soak import CONFIG, is_alive, kill, start, succeeds, wait_for

from mmdet_hadaptive.datasets import SHAPE_CLASSES

SIDE, NUM_VAL = 64, 400


def draw(rng):
    """One shape on a plain background: pixels and box."""
    image = np.full((SIDE, SIDE, 3), rng.integers(0, 80, 3), np.uint8)
    image += rng.integers(0, 30, image.shape, np.uint8)
    label, radius = int(rng.integers(len(SHAPE_CLASSES))), int(rng.integers(8, 24))
    x, y = map(int, rng.integers(radius, SIDE - radius, 2))
    colour = tuple(map(int, rng.integers(130, 256, 3)))
    corners = np.array([[x, y - radius], [x + radius, y + radius], [x - radius, y + radius]])
    (
        lambda: cv2.circle(image, (x, y), radius, colour, -1),
        lambda: cv2.circle(image, (x, y), radius - 2, colour, 3),
        lambda: cv2.fillPoly(image, [corners], colour),
        lambda: cv2.drawMarker(image, (x, y), colour, cv2.MARKER_CROSS, 2 * radius, 4),
    )[label]()
    return image, label, [x - radius, y - radius, 2 * radius, 2 * radius]


def make_images(folder, split, count):
    """Writes images and annotations in COCO's format."""
    (folder / split).mkdir(parents=True)
    (folder / 'annotations').mkdir(exist_ok=True)
    images, boxes = [], []
    rng = np.random.default_rng(('train', 'val').index(split))
    for number in range(1, count + 1):
        pixels, label, box = draw(rng)
        name = f'{number:06d}.png'
        cv2.imwrite(str(folder / split / name), pixels)
        images.append(dict(id=number, file_name=name, width=SIDE, height=SIDE))
        box = dict(image_id=number, bbox=box, area=box[2] * box[3], category_id=label + 1)
        boxes.append(dict(id=number, iscrowd=0, **box))
    categories = [dict(id=i, name=name) for i, name in enumerate(SHAPE_CLASSES, 1)]
    content = dict(images=images, annotations=boxes, categories=categories)
    (folder / f'annotations/instances_{split}.json').write_text(json.dumps(content))


def write_config(folder, batch_size, interval):
    """The shapes config with small images and anchors, which saves within its only epoch."""
    anchors = dict(
        strides=[16, 32, 64, 64, 64, 64],
        min_sizes=[16, 28, 36, 44, 48, 52],
        max_sizes=[28, 36, 44, 48, 52, 56],
    )
    (folder / 'soak.py').write_text(f"""
_base_ = {str(CONFIG)!r}
custom_imports = dict(imports=['mmdet_hadaptive', 'stop_points', 'batch_recorder'])
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = ({SIDE}, {SIDE})
model = dict(bbox_head=dict(anchor_generator={anchors}))
train_dataloader = dict(
    batch_size={batch_size}, num_workers=1, dataset=dict(dataset=dict(pipeline=train_pipeline))
)
val_dataloader = dict(
    batch_size=25, num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline)
)
train_cfg = dict(type='ResumableTrainLoop', max_epochs=1, val_interval=1)
param_scheduler = []
custom_hooks = [*_base_.custom_hooks, dict(type='BatchRecorder')]
# Each process averages the statistics of its own images.
custom_hooks[-2].update_buffers = False
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(by_epoch=False, interval={interval}, save_best=None),
)
# Gradients are summed in the same order after each start
# (research/reports/reproducibility.md), and all processes validate with the saved statistics.
model_wrapper_cfg = dict(
    type='MMDistributedDataParallel', find_unused_parameters=True, broadcast_buffers=True
)
""")


def read_events(folder, processes):
    """By process and iteration what was trained on, and how often; and the metrics."""
    trained, metrics, count = {}, [], 0
    for rank in range(processes):
        for line in (folder / f'events_{rank}.jsonl').read_text().splitlines():
            event = json.loads(line)
            if 'metrics' not in event:
                # Of an iteration that was repeated after the kill, the last.
                trained[rank, event['iteration']] = event['images'], event['losses']
                count += 1
            # All processes get the same.
            elif event['metrics'] not in metrics:
                metrics.append(event['metrics'])
    return trained, metrics, count


def train_and_kill(folder, processes, num_images, batch_size):
    """Runs it all in an empty folder, and returns a line that says what was compared."""
    began = time.monotonic()
    iterations, rest = divmod(num_images, processes * batch_size)
    assert not rest, 'the images must fill the batches of all processes'
    interval = max(1, iterations // 4)
    for split, count in (('train', num_images), ('val', min(num_images, NUM_VAL))):
        make_images(folder / 'data/shapes', split, count)
    write_config(folder, batch_size, interval)
    assert succeeds(start(folder, 'whole', processes)), (folder / 'whole.log').read_text()[-3000:]
    whole, (metrics,), count = read_events(folder / 'whole', processes)
    print(f'uninterrupted: {count} batches, {metrics}', flush=True)
    seen = sorted(image for images, _ in whole.values() for image in images)
    assert seen == list(range(1, num_images + 1)), 'not every image was trained on once'

    training = start(folder, 'killed', processes)
    events = folder / f'killed/events_{processes - 1}.jsonl'
    # Half-way between the second checkpoint and the third.
    stop = 2 * interval + interval // 2
    assert wait_for(lambda: events.exists() and events.read_text().count('\n') >= stop, training), (
        folder / 'killed.log'
    ).read_text()[-3000:]
    assert is_alive(training)
    kill(training, processes - 1)
    _, _, before = read_events(folder / 'killed', processes)
    print(f'killed: {before} batches', flush=True)
    assert succeeds(start(folder, 'killed', processes)), (folder / 'killed.log').read_text()[-3000:]
    killed, (resumed_metrics,), count = read_events(folder / 'killed', processes)
    print(f'resumed: {count - before} batches, {resumed_metrics}', flush=True)
    assert count - before == (iterations - 2 * interval) * processes, 'not from the last checkpoint'
    assert {key: images for key, (images, _) in killed.items()} == {
        key: images for key, (images, _) in whole.items()
    }, 'other images'
    assert killed == whole, 'other losses'
    assert resumed_metrics == metrics
    assert metrics['coco/bbox_mAP'] > 0, 'a comparison of nothing'
    states = [
        torch.load(folder / name / f'iter_{iterations}.pth', weights_only=True)
        for name in ('whole', 'killed')
    ]
    for part in ('state_dict', 'ema_state_dict'):
        first, second = (state[part] for state in states)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), f'{part} differ'
    return (
        f'{processes} processes, {num_images} images, {iterations} iterations; killed after '
        f'{before // processes} and resumed from {2 * interval}: images, losses of all processes, '
        f'weights and mAP ({metrics["coco/bbox_mAP"]:.3f}) are bitwise those of a run that was '
        f'never stopped ({(time.monotonic() - began) / 60:.0f} minutes)'
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--processes', type=int, default=8)
    parser.add_argument('--images', type=int, default=20_000)
    parser.add_argument('--batch-size', type=int, default=25, help='of each process')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(train_and_kill(Path(name), args.processes, args.images, args.batch_size))
