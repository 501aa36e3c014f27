"""Writes a report of curves, tables and pictures after a training."""

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import mmcv
import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.figure import Figure
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from ..utils.files import write_whole_folder
from ..utils.metrics import METRICS, PREFIX

_MIN_IOU = 0.5
# The lowest score of a detection that counts and is drawn.
_MIN_SCORE = 0.3
# The longer side of a drawn image in pixels.
_SMALLEST, _LARGEST = 480, 960
_MOST_NUMBERED, _MOST_NAMED = 25, 40


@dataclass
class ImageResult:
    """The result of a detector for one image.

    Attributes:
        sample: The image's annotations and detections.
        pairs: The annotated and the detected label of each match. A box that was not found has the
            detected label -1. A detection where there is no box has the annotated label -1.
    """

    sample: DetDataSample
    pairs: list[tuple[int, int]]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Returns the number of boxes found, found as another class, missed, and false."""
        missed = sum(detected < 0 for _, detected in self.pairs)
        false = sum(annotated < 0 for annotated, _ in self.pairs)
        found = sum(annotated == detected for annotated, detected in self.pairs)
        return found, len(self.pairs) - found - missed - false, missed, false

    @property
    def rank(self) -> tuple[float, int, str]:
        """Returns the key for sorting: the worst F1 score first, then the most mistakes."""
        found, confused, missed, false = self.counts
        boxes = 2 * (found + confused) + missed + false
        score = 2 * found / boxes if boxes else 1.0
        return score, -(confused + missed + false), self.sample.img_path


@HOOKS.register_module()
class TrainingReportHook(Hook):
    """Writes pictures and tables of a training into the folder ``report`` of its work directory.

    - ``curves.png``: the loss and the mAP;
    - ``classes.csv``: for each class its AP, if ``val_evaluator`` has ``classwise=True``, and its
      number of training and validation boxes;
    - ``confusion_matrix.png``: the annotated classes against the detected ones;
    - ``worst/``: the validation images with the worst F1 scores, annotations on the left and
      detections on the right; ``worst.csv`` counts their mistakes.

    All of this comes from the last validation of the training. A detection counts if its score is
    at least 0.3. It matches a box if their IoU is at least 0.5. Boxes of its own class
    are matched first. The folder is written completely at the end, and replaces an old one.

    Args:
        num_worst: The number of drawn images.
    """

    # The checkpoint is written before the report.
    priority = 'LOWEST'

    def __init__(self, num_worst: int = 20) -> None:
        self.num_worst = num_worst
        self._metrics: dict[str, float] | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        """Starts counting."""
        self._pairs: dict[str, list[tuple[int, int]]] = {}
        self._worst: list[ImageResult] = []

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[DetDataSample] | None = None,
    ) -> None:
        """Counts the images of a batch."""
        for sample in outputs or ():
            if 'gt_instances' in sample:
                result = match_detections(sample)
                self._pairs[sample.img_path] = result.pairs
                self._keep_worst([*self._worst, result])

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Adds the counts of all processes."""
        parts = all_gather_object((self._pairs, self._worst))
        # The sampler may repeat the last images of a data set.
        self._pairs = {path: pairs for found, _ in parts for path, pairs in found.items()}
        self._keep_worst([result for _, worst in parts for result in worst])
        count = len(runner.val_dataloader.dataset.metainfo['classes'])
        # The last row and column, -1, mean that there is no box.
        self._matrix = np.zeros((count + 1, count + 1), int)
        for pairs in self._pairs.values():
            for annotated, detected in pairs:
                self._matrix[annotated, detected] += 1
        self._metrics = metrics or {}

    def after_train(self, runner: Runner) -> None:
        """Writes the report."""
        # A training that had finished before already has its report.
        if self._metrics is None or not is_main_process():
            return
        folder = Path(runner.work_dir) / 'report'
        dataset = runner.val_dataloader.dataset
        names = readable_names(dataset.metainfo['classes'])
        curves = io.BytesIO()
        scalars = sorted(Path(runner.work_dir).glob('*/vis_data/scalars.json'))
        plot_curves(scalars, curves, folder.resolve().parent.name)
        files = {
            'curves.png': curves.getvalue(),
            'classes.csv': self._describe_classes(runner),
            'confusion_matrix.png': draw_confusion(self._matrix, names),
            'worst.csv': self._describe_worst(),
        }
        for number, result in enumerate(self._worst, 1):
            name = f'worst/{number:02}_{Path(result.sample.img_path).stem}.jpg'
            files[name] = draw_result(result.sample, names)
        write_whole_folder(files, folder)
        runner.logger.info(f'Curves, classes, confusions and the worst images are in {folder}')

    def _keep_worst(self, results: list[ImageResult]) -> None:
        unique = {result.sample.img_path: result for result in results}
        self._worst = sorted(unique.values(), key=lambda result: result.rank)[: self.num_worst]

    def _describe_classes(self, runner: Runner) -> bytes:
        classes = runner.val_dataloader.dataset.metainfo['classes']
        trained = count_boxes(runner.train_dataloader.dataset)
        rows = [['number', 'class', 'AP', 'training boxes', 'validation boxes']]
        for label, name in enumerate(classes):
            ap = self._metrics.get(f'coco/{name}_precision', '')
            rows.append([label, name, ap, trained[label], self._matrix[label].sum()])
        return _to_csv(rows)

    def _describe_worst(self) -> bytes:
        rows = [['number', 'image', 'found', 'found as another class', 'missed', 'false']]
        for number, result in enumerate(self._worst, 1):
            rows.append([number, result.sample.img_path, *result.counts])
        return _to_csv(rows)


def plot_curves(scalars: Sequence[str | Path], out_file: str | Path | BinaryIO, title: str) -> None:
    """Draws the loss over iterations and the mAP over epochs.

    Args:
        scalars: MMEngine's files ``scalars.json``, with a JSON object in each line. There is one
            file for each start of the training, in this order. Values of later files replace those
            of earlier ones.
        out_file: The picture to write.
        title: The title of the picture.
    """
    series: dict[str, dict[float, float]] = defaultdict(dict)
    for line in (line for file in scalars for line in Path(file).read_text().splitlines()):
        try:
            record: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            # A killed process or a full disk may leave half a line.
            continue
        for key in ('loss', 'loss_cls', 'loss_bbox', *METRICS):
            # An mAP of -1 means that there was no prediction.
            if key in record:
                series[key][record['step']] = max(record[key], 0)
    figure = Figure(figsize=(11, 4), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots(1, 2)
    for name, points in series.items():
        axis = axes[int(name in METRICS)]
        axis.plot(*zip(*sorted(points.items()), strict=True), '.-', label=name.removeprefix(PREFIX))
    axes[0].set(xlabel='iteration', ylabel='training loss', ylim=(0, None))
    axes[1].set(xlabel='epoch', ylabel='COCO AP on the validation images', ylim=(0, 1))
    for axis in axes:
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    figure.savefig(out_file, dpi=110)


def match_detections(sample: DetDataSample) -> ImageResult:
    """Compares the detections in an image with its annotations.

    Args:
        sample: The image's ``gt_instances``, ``pred_instances``, and perhaps ``ignored_instances``.

    Returns:
        The result, with the detections that count.
    """
    sample = sample.cpu()
    sample.pred_instances = sample.pred_instances[sample.pred_instances.scores >= _MIN_SCORE]
    truth, found = sample.gt_instances, sample.pred_instances
    boxes, detections = _to_tensor(truth.bboxes), _to_tensor(found.bboxes)
    overlaps = bbox_overlaps(boxes, detections).numpy()
    is_same = truth.labels[:, None].numpy() == found.labels[None].numpy()
    close = [tuple(pair) for pair in np.argwhere(overlaps >= _MIN_IOU)]
    order = sorted(close, key=lambda pair: (is_same[pair], overlaps[pair]), reverse=True)
    left, unused = set(range(len(boxes))), set(range(len(detections)))
    pairs = []
    for box, detection in order:
        if box in left and detection in unused:
            left.remove(box)
            unused.remove(detection)
            pairs.append((int(truth.labels[box]), int(found.labels[detection])))
    ignored = sample.get('ignored_instances')
    if ignored is not None and len(ignored) and unused:
        share = bbox_overlaps(detections, _to_tensor(ignored.bboxes), mode='iof').amax(1)
        unused = {detection for detection in unused if share[detection] < _MIN_IOU}
    pairs += [(int(truth.labels[box]), -1) for box in left]
    pairs += [(-1, int(found.labels[detection])) for detection in unused]
    return ImageResult(sample, pairs)


def count_boxes(dataset: Any) -> Counter[int]:
    """Counts the boxes of a data set by their label.

    Args:
        dataset: A data set of MMDetection's, or a wrapper of one such as ``RepeatDataset``.

    Returns:
        The number of boxes for each label, without ignored ones.
    """
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    return Counter(
        instance['bbox_label']
        for info in infos
        for instance in info['instances']
        if not instance['ignore_flag']
    )


def readable_names(classes: Sequence[str]) -> list[str]:
    """Returns the class names that matplotlib can draw.

    Args:
        classes: The names.

    Returns:
        The names. If matplotlib's font lacks letters of a name, such as Chinese ones, its number is
        used, which ``classes.csv`` explains.
    """
    letters = font_manager.get_font(font_manager.findfont('DejaVu Sans')).get_charmap()
    return [
        # matplotlib reads text between two dollar signs as a formula.
        name.replace('$', r'\$') if all(ord(c) in letters for c in name) else f'class {label}'
        for label, name in enumerate(classes)
    ]


def draw_confusion(matrix: np.ndarray, names: Sequence[str]) -> bytes:
    """Draws a confusion matrix. If there are many classes, it shows the 40 with the most errors.

    Args:
        matrix: (classes + 1, classes + 1), counts by annotated (row) and detected class.
        names: The names of the classes.

    Returns:
        The picture, a PNG file.
    """
    names = [*names, 'no box']
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    num_rows = len(names)
    shown = choose_classes(matrix, _MOST_NAMED)
    names = [names[number] for number in shown]
    matrix, shares = (table[np.ix_(shown, shown)] for table in (matrix, shares))
    size = 3.5 + 0.45 * len(names)
    figure = Figure(figsize=(size + 1, size), layout='constrained')
    axis = figure.subplots()
    figure.colorbar(axis.imshow(shares, vmin=0, vmax=1, cmap='Blues'), label='share of the row')
    axis.set(xlabel='detected as', ylabel='annotated as')
    places = range(len(names))
    axis.set_xticks(places, names, rotation=45, ha='right', rotation_mode='anchor')
    axis.set_yticks(places, names)
    if len(shown) < num_rows:
        axis.set_title(f'the {len(shown) - 1} of {num_rows - 1} classes with the most errors')
    if len(names) <= _MOST_NUMBERED:
        for row, column in np.argwhere(matrix):
            colour = 'white' if shares[row, column] > 0.5 else 'black'
            count = str(matrix[row, column])
            axis.text(column, row, count, ha='center', va='center', color=colour, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110)
    return picture.getvalue()


def choose_classes(matrix: np.ndarray, most: int) -> list[int]:
    """Chooses the classes with the most errors.

    Args:
        matrix: (classes + 1, classes + 1), as for :func:`draw_confusion`.
        most: The highest number of classes.

    Returns:
        Their indices in rising order, and the last index, for no box.
    """
    errors = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
    worst = np.argsort(-errors[:-1], kind='stable')[:most]
    return [*sorted(worst.tolist()), len(matrix) - 1]


def draw_result(sample: DetDataSample, names: Sequence[str]) -> bytes:
    """Draws the annotations of an image (left) and its detections (right).

    Args:
        sample: The image's path, annotations and detections.
        names: The names of the classes.

    Returns:
        The picture, a JPEG file.
    """
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    longest = max(image.shape[:2])
    scale = min(max(longest, _SMALLEST), _LARGEST) / longest
    image = mmcv.imrescale(image, scale)
    sample = sample.clone()
    for part in (sample.gt_instances, sample.pred_instances):
        part.bboxes = _to_tensor(part.bboxes) * scale
    colours = islice(
        cycle((255 * np.array(colormaps['tab10'].colors)).round().tolist()), len(names)
    )
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dict(classes=names, palette=list(map(tuple, colours)))
    # The visualizer draws scores above the threshold, not those equal to it.
    visualizer.add_datasample('', image, sample, pred_score_thr=_MIN_SCORE - 1e-6)
    picture = cv2.cvtColor(visualizer.get_image(), cv2.COLOR_RGB2BGR)
    return cv2.imencode('.jpg', picture)[1].tobytes()


def _to_tensor(boxes: Any) -> Tensor:
    return getattr(boxes, 'tensor', boxes)


def _to_csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    # Spreadsheets read a file as UTF-8 if it begins with this mark.
    return text.getvalue().encode('utf-8-sig')
