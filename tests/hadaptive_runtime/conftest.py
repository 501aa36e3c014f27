import numpy as np
import pytest

from hadaptive_runtime import Detector, Preprocessing
from hadaptive_runtime import __main__ as command
from hadaptive_runtime.session import Session

SIZE = (96, 160)
# Beyond any image, and small.
BOXES = np.float32([[[-5, -5, 900, 900], [10, 20, 40, 60], [0, 0, 0, 0]]])


@pytest.fixture
def make_detector():
    """Makes a detector of constant outputs, which are those of a network of mode nms."""

    def make(size=SIZE, keep_ratio=True, classes=('cat', 'dog'), **changed):
        plain = ((0.0,) * 3, (1.0,) * 3, (0.0,) * 3)
        preprocessing = Preprocessing(size, size, keep_ratio, 'BGR', *plain)
        outputs = dict(
            boxes=BOXES, scores=np.float32([[0.9, 0.8, 0]]), labels=np.int64([[0, 1, -1]])
        )
        outputs |= changed.pop('outputs', {})
        outputs = {name: value for name, value in outputs.items() if value is not None}
        metadata = dict(format='onnx', classes=list(classes), **preprocessing.metadata(), **changed)
        return Detector(Session(lambda inputs: outputs, 1), metadata)

    return make


@pytest.fixture
def main(tmp_path, monkeypatch, make_detector):
    """Runs the command line in a folder of its own, with a detector that always finds the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, 'load_exported', lambda file: main.detector)

    def main(*arguments):
        monkeypatch.setattr('sys.argv', ['predict.py', 'model.onnx', *map(str, arguments)])
        command.main()

    main.detector = make_detector()
    return main
