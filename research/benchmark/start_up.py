"""Measures how long trainings on large data sets take to start, and the memory of all processes."""

import json
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from torch.utils.data import DataLoader, Subset


def make_large_coco(
    source: str | Path, target: str | Path, num_images: int, num_boxes: int
) -> None:
    """Repeats the images of a small data set until it has the size of a large one.

    Args:
        source: A folder with ``annotations/instances_train2017.json`` and ``train2017``.
        target: Gets the same; the images are hard links to one copy of each.
        num_images: Images wanted.
        num_boxes: Boxes wanted, which are spread over all images evenly.
    """
    source, target = Path(source), Path(target)
    coco = json.loads((source / 'annotations/instances_train2017.json').read_text())
    boxes: dict[int, list[dict[str, Any]]] = {}
    for box in coco['annotations']:
        boxes.setdefault(box['image_id'], []).append(box)
    originals = [image for image in coco['images'] if image['id'] in boxes]
    folder = target / 'train2017'
    folder.mkdir(parents=True)
    (target / 'annotations').mkdir()
    for image in originals:
        shutil.copy(source / 'train2017' / image['file_name'], target)

    def repeat() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        box_id = 0
        for index in range(num_images):
            image = originals[index % len(originals)]
            found = []
            while box_id < (index + 1) * num_boxes // num_images:
                box = boxes[image['id']][len(found) % len(boxes[image['id']])]
                box_id += 1
                found.append({**box, 'id': box_id, 'image_id': index + 1})
            name = f'{index + 1:012d}.jpg'
            os.link(target / image['file_name'], folder / name)
            yield {**image, 'id': index + 1, 'file_name': name}, found

    images, annotations = [], []
    for image, found in repeat():
        images.append(json.dumps(image))
        annotations += map(json.dumps, found)
    with (target / 'annotations/instances_train2017.json').open('w') as file:
        file.write(f'{{"categories": {json.dumps(coco["categories"])}, "images": [')
        file.write(', '.join(images) + '], "annotations": [')
        file.write(', '.join(annotations) + ']}')


def measure_loading(config: dict[str, Any], num_processes: int) -> dict[str, list[float]]:
    """Builds a data set in several processes at once, as the ranks of a training do.

    Args:
        config: The data set's config.
        num_processes: How many.

    Returns:
        For each process ``seconds`` until it had its data, ``cpu`` seconds it took for that, and
        in MiB the highest memory (``peak``) and its part of the memory at the end (``pss``, in
        which shared pages count once, divided by those who share them). Linux only.
    """
    context = multiprocessing.get_context('spawn')
    barrier, queue = context.Barrier(num_processes), context.Queue()
    processes = [
        context.Process(target=_load, args=(config, barrier, queue)) for _ in range(num_processes)
    ]
    for process in processes:
        process.start()
    rows = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return {key: [row[key] for row in rows] for key in rows[0]}


def measure_worker_start(
    config: dict[str, Any], num_workers: int, rounds: int
) -> dict[str, list[float]]:
    """Measures what an epoch takes to begin: until the loader has its first batch.

    Args:
        config: The data set's config.
        num_workers: Processes that load data.
        rounds: Epochs that are begun, one of each kind in turn.

    Returns:
        Seconds of each epoch with workers that start with it (``anew``) and with ones that live on
        (``persistent``).
    """
    dataset = DATASETS.build(config)
    loaders = {
        kind: DataLoader(
            Subset(dataset, range(4 * num_workers)),
            num_workers=num_workers,
            persistent_workers=kind == 'persistent',
            collate_fn=list,
        )
        for kind in ('anew', 'persistent')
    }
    # These start their workers once.
    list(loaders['persistent'])
    seconds: dict[str, list[float]] = {kind: [] for kind in loaders}
    for _ in range(rounds):
        for kind, loader in loaders.items():
            start = time.perf_counter()
            batches = iter(loader)
            next(batches)
            seconds[kind].append(time.perf_counter() - start)
            list(batches)
    return seconds


def _load(config: dict[str, Any], barrier: Any, queue: Any) -> None:
    import mmdet_hadaptive  # noqa: F401  # Registers the data set, in a process that is new.

    barrier.wait()
    start, cpu = time.perf_counter(), time.process_time()
    dataset = DATASETS.build(config)
    row = dict(seconds=time.perf_counter() - start, cpu=time.process_time() - cpu)
    assert len(dataset)
    barrier.wait()
    row['peak'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
    row['pss'] = next(int(line.split()[1]) for line in lines if line.startswith('Pss:')) / 2**10
    queue.put(row)
    barrier.wait()
