"""Detects objects with an exported model: NumPy, OpenCV and ONNX Runtime, nothing else.

Made to be copied. The model is one of tools/export_onnx.py in mode nms; how images are prepared,
and what the classes are called, is in its metadata. OMP_NUM_THREADS limits the threads.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

IMAGES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp'}
VIDEOS = {'.mp4', '.avi', '.mov', '.mkv', '.webm'}


def read_model(file: str) -> bytes:
    """The content of a model's file; its last entry is the SHA-256 of what comes before."""
    content = Path(file).read_bytes()
    body, _, digest = content.rpartition(b'rL\n\x06sha256\x12B')
    if digest != json.dumps(hashlib.sha256(body).hexdigest()).encode():
        raise ValueError('damaged, or not written by tools/export_onnx.py: copy or export it again')
    return content


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
        try:
            self.session = onnxruntime.InferenceSession(
                read_model(file), options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # those of ONNX Runtime have no base class of their own
            raise SystemExit(f'{file}: {str(error).splitlines()[0]}') from error
        stored = self.session.get_modelmeta().custom_metadata_map
        self.settings = {key: json.loads(value) for key, value in stored.items()}
        if self.settings['mode'] != 'nms':
            raise SystemExit(f'{file}: gives no detections, export it with --mode nms')
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
            new_height, new_width = (max(int(x * scale + 0.5), 1) for x in (height, width))
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


def read_image(file: Path) -> np.ndarray | None:
    """The image (H, W, 3), uint8, BGR, upright as its EXIF data say; None if it cannot be read.

    Like MMDetection's LoadImageFromFile: grey and CMYK become BGR, 16 bits become 8, and a fourth
    channel is dropped. Unlike there, truncated files are refused; OpenCV 4 fills JPEG up with grey.
    """
    try:
        content = file.read_bytes()
    except OSError:
        return None
    # The end must come after the last start of the data; a thumbnail has an end of its own.
    jpeg = content.startswith(b'\xff\xd8')
    if jpeg and content.rfind(b'\xff\xd9') < content.rfind(b'\xff\xda'):
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def frames(source: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    """The name of each picture to write, and the image; None if it cannot be read."""
    if source.suffix.lower() in VIDEOS:
        video = cv2.VideoCapture(str(source))
        number = 0
        while (read := video.read())[0]:
            yield f'{source.stem}_{number:06}.jpg', read[1]
            number += 1
        if not number:
            yield source.name, None
    elif source.is_dir():
        for file in sorted(source.iterdir()):
            if file.suffix.lower() in IMAGES:
                yield file.name, read_image(file)
    else:
        name = source.name if source.suffix.lower() in IMAGES else f'{source.name}.jpg'
        yield name, read_image(source)


def main() -> None:
    """Draws the detections and prints how long each image takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model')
    parser.add_argument('source', type=Path, help='an image, a folder of images, or a video')
    parser.add_argument('--out', type=Path, default=Path('outputs'))
    parser.add_argument('--threshold', type=float, default=0.3, help='lowest score to draw')
    args = parser.parse_args()
    if not args.source.exists():
        raise SystemExit(f'{args.source}: no such image, folder or video')
    folder = args.source if args.source.is_dir() else args.source.parent
    if args.out.resolve() == folder.resolve():
        raise SystemExit(f'{args.out}: would overwrite the images, name another folder with --out')
    detector = Detector(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    seconds, unreadable = [], []
    for name, image in frames(args.source):
        if image is None:
            unreadable.append(name)
            continue
        start = time.perf_counter()
        detections = detector(image)
        seconds.append(time.perf_counter() - start)
        picture = args.out / name
        if not cv2.imwrite(str(picture), draw(image, detector, detections, args.threshold)):
            raise SystemExit(f'{picture}: cannot be written')
    if seconds:
        median = 1000 * np.median(seconds)
        print(f'images: {len(seconds)}, median latency: {median:.1f} ms, pictures: {args.out}')
    if unreadable:
        names = ', '.join(unreadable)
        sys.exit(
            f'{args.source}: {len(unreadable)} not readable, empty or truncated, replace: {names}'
        )
    if not seconds:
        sys.exit(f'{args.source}: no image ({", ".join(sorted(IMAGES))})')


if __name__ == '__main__':
    main()
