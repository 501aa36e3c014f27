"""Detects objects with an exported model: NumPy, OpenCV and ONNX Runtime, nothing else.

Made to be copied. The model is one of tools/export_onnx.py in mode nms; how images are prepared,
and what the classes are called, is in its metadata. OMP_NUM_THREADS limits the threads.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

IMAGES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp'}
VIDEOS = {'.mp4', '.avi', '.mov', '.mkv', '.webm'}


class Detector:
    """An exported model.

    Args:
        file: The ONNX file.

    Attributes:
        classes: Names of the classes.
    """

    def __init__(self, file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get('OMP_NUM_THREADS', 0))
        self.session = onnxruntime.InferenceSession(
            file, options, providers=['CPUExecutionProvider']
        )
        stored = self.session.get_modelmeta().custom_metadata_map
        self.settings = {key: json.loads(value) for key, value in stored.items()}
        if self.settings.get('mode') != 'nms':
            raise SystemExit(f'{file}: not a model of tools/export_onnx.py in mode nms')
        self.input = self.session.get_inputs()[0]
        if self.input.shape[0] not in (1, 'batch'):
            raise SystemExit(f'{file}: takes {self.input.shape[0]} images, export with --batch 1')
        self.classes: list[str] = self.settings['classes']

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Resizes, pads and normalises an image.

        Args:
            image: (H, W, 3), uint8, BGR.

        Returns:
            The input of the model, (1, 3, H', W'), float32, and the two factors, of width and
            height, by which the image was resized.
        """
        settings = self.settings
        height, width = image.shape[:2]
        new_height, new_width = settings['resize']
        if settings['keep_ratio']:
            scale = min(new_height / height, new_width / width)
            new_height, new_width = int(height * scale + 0.5), int(width * scale + 0.5)
        image = cv2.resize(image, (new_width, new_height))
        if settings['channel_order'] == 'RGB':
            image = image[..., ::-1]
        canvas = np.empty((*settings['input_size'], 3), np.float32)
        canvas[:] = settings['pad_value']
        canvas[:new_height, :new_width] = image
        canvas = (canvas - np.float32(settings['mean'])) / np.float32(settings['std'])
        factors = np.float32([new_width / width, new_height / height])
        return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None]), factors

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Detects objects.

        Args:
            image: (H, W, 3), uint8, BGR.

        Returns:
            Boxes (n, 4), (x1, y1, x2, y2) in pixels of the image; scores (n,), falling; and
            labels (n,), indices into ``classes``.
        """
        inputs, factors = self.prepare(image)
        names = ['boxes', 'scores', 'labels']
        boxes, scores, labels = (x[0] for x in self.session.run(names, {self.input.name: inputs}))
        # Every image gets the same number of rows; those without a detection have the label -1.
        found = labels >= 0
        limits = np.float32([image.shape[1], image.shape[0]] * 2)
        boxes = np.clip(boxes[found] / np.tile(factors, 2), 0, limits)
        return boxes, scores[found], labels[found]


def draw(image: np.ndarray, detector: Detector, detections: tuple, threshold: float) -> np.ndarray:
    """A copy of the image with the detections that score at least the threshold."""
    image = image.copy()
    for box, score, label in zip(*detections, strict=True):
        if score < threshold:
            continue
        hue = np.uint8([[[label * 180 // len(detector.classes), 200, 230]]])
        colour = tuple(map(int, cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0]))
        x1, y1, x2, y2 = map(int, box)
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
        text, font = f'{detector.classes[label]} {score:.2f}', cv2.FONT_HERSHEY_SIMPLEX
        (width, height), _ = cv2.getTextSize(text, font, 0.45, 1)
        top = max(y1 - height - 6, 0)
        cv2.rectangle(image, (x1, top), (x1 + width + 4, top + height + 6), colour, -1)
        cv2.putText(image, text, (x1 + 2, top + height + 2), font, 0.45, (0, 0, 0), 1)
    return image


def frames(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each picture to write, and the image."""
    if source.suffix.lower() in VIDEOS:
        video = cv2.VideoCapture(str(source))
        number = 0
        while (read := video.read())[0]:
            yield f'{source.stem}_{number:06}.jpg', read[1]
            number += 1
        return
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    for file in files:
        if file.suffix.lower() in IMAGES and (image := cv2.imread(str(file))) is not None:
            yield f'{file.stem}.jpg', image


def main() -> None:
    """Draws the detections and prints how long each image takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model')
    parser.add_argument('source', type=Path, help='an image, a folder of images, or a video')
    parser.add_argument('--out', type=Path, default=Path('outputs'))
    parser.add_argument('--threshold', type=float, default=0.3, help='lowest score to draw')
    args = parser.parse_args()
    detector = Detector(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    seconds = []
    for name, image in frames(args.source):
        start = time.perf_counter()
        detections = detector(image)
        seconds.append(time.perf_counter() - start)
        cv2.imwrite(str(args.out / name), draw(image, detector, detections, args.threshold))
    if not seconds:
        raise SystemExit(f'{args.source}: no image or video that OpenCV can read')
    median = 1000 * np.median(seconds)
    print(f'images: {len(seconds)}, median latency: {median:.1f} ms, pictures: {args.out}')


if __name__ == '__main__':
    main()
