"""Times MMDetection's CocoMetric and FastCocoMetric on made-up detections for as many images."""

import argparse
import tempfile
from pathlib import Path

import mmdet_hadaptive  # noqa: F401
from research.benchmark.evaluation_time import draw_detections, time_metrics
from research.benchmark.start_up import make_large_coco
from research.markdown import markdown_table


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', type=Path, help='a part of COCO, which is repeated')
    parser.add_argument('--images', type=int, default=5_000)
    parser.add_argument('--boxes', type=int, default=36_781)
    parser.add_argument('--detections', type=int, default=200, help='per image')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_large_coco(args.source, folder, args.images, args.boxes)
        file = Path(folder) / 'annotations/instances_train2017.json'
        detections = draw_detections(file, args.detections, args.seed)
        times = time_metrics(['CocoMetric', 'FastCocoMetric'], file, detections)
    names = list(times['CocoMetric'][1])
    rows = [
        [name, f'{seconds:.1f}', *(values[key] for key in names)]
        for name, (seconds, values) in times.items()
    ]
    print(markdown_table(['', 'seconds', *names], rows))


if __name__ == '__main__':
    main()
