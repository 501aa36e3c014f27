"""Videos and cameras in tools/predict.py."""

import os
import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from hadaptive_runtime import Preprocessing, load_exported, predict
from hadaptive_runtime.predict import Predictor

from .conftest import constant_model

SIZE = (96, 160)
PREPROCESSING = Preprocessing(SIZE, SIZE, True, 'BGR', (0.0,) * 3, (1.0,) * 3, (0.0,) * 3)


@pytest.fixture
def main(tmp_path, monkeypatch):
    """Runs the tool in a folder of its own."""
    constant_model(tmp_path / 'model.onnx', PREPROCESSING)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr('sys.argv', ['predict.py', 'model.onnx', *map(str, arguments)])
        predict.main()

    return run


def write_video(file, num_frames=20):
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*'MJPG'), 5, (120, 80))
    for number in range(num_frames):
        writer.write(np.full((80, 120, 3), 10 * number, np.uint8))
    writer.release()
    return file


def read_video(file):
    capture, frames = cv2.VideoCapture(str(file)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def test_a_video_is_annotated(tmp_path, main, capsys):
    main(write_video(tmp_path / 'video.avi'))
    output = capsys.readouterr().out
    assert output.startswith('frames: 20, median latency: ')
    assert output.endswith(' per second, written: outputs/video.avi.mp4\n')
    frames, rate = read_video('outputs/video.avi.mp4')
    assert rate == 5
    assert len(frames) == 20
    for number in (0, 19):
        # Where nothing is drawn, the frames are those of the source, in its order.
        assert np.abs(frames[number][70, 60].astype(int) - 10 * number).max() < 8
        # A border of the smaller box, which the constant model always finds.
        assert np.ptp(frames[number][30, 5:40].astype(int), axis=0).max() > 40
    assert [file.name for file in (tmp_path / 'outputs').iterdir()] == ['video.avi.mp4']


def test_truncated_videos_are_predicted_and_named(tmp_path, main, capsys):
    video = write_video(tmp_path / 'video.avi')
    content = video.read_bytes()
    video.write_bytes(content[: len(content) * 7 // 10])
    main(video)
    written, said = capsys.readouterr()
    count = int(re.search(r'frames: (\d+),', written)[1])
    assert 0 < count < 20
    assert len(read_video('outputs/video.avi.mp4')[0]) == count
    assert said.startswith(f'note: {video} announces 4.0 seconds and ends after ')
    assert f'({count} frames)' in said
    video.write_bytes(b'nothing')
    with pytest.raises(SystemExit, match=r'video\.avi cannot be read as a video.*replace it'):
        main(video)
    # The picture of before is still there.
    assert len(read_video('outputs/video.avi.mp4')[0]) == count


@pytest.mark.parametrize('lost', [0, 1])
def test_a_video_that_cannot_be_written(tmp_path, main, monkeypatch, lost):
    class FullDisk:
        """Writes nothing, or all but the last frames, and does not say so."""

        def __init__(self, *args):
            self.frames = []
            self.writer = writer_class(*args) if lost else None

        def isOpened(self):  # noqa: N802
            return bool(lost)

        def write(self, frame):
            self.frames.append(frame)

        def release(self):
            if self.writer:
                for frame in self.frames[:-lost]:
                    self.writer.write(frame)
                self.writer.release()

    video = write_video(tmp_path / 'video.avi')
    writer_class = cv2.VideoWriter
    monkeypatch.setattr(cv2, 'VideoWriter', FullDisk)
    with pytest.raises(SystemExit, match=r'outputs/video\.avi\.mp4 cannot be written: make room'):
        main(video)
    assert list((tmp_path / 'outputs').iterdir()) == []


def test_a_camera_is_recorded_until_it_is_stopped(tmp_path, main, monkeypatch, capsys):
    capture_class = cv2.VideoCapture

    class Camera:
        def __init__(self, source):
            assert source == 3
            self.count = 0

        def read(self):
            self.count += 1
            # Several frames of a camera of 1,000 a second.
            time.sleep(0.003)
            if self.count > 4:
                monkeypatch.setattr(cv2, 'VideoCapture', capture_class)
                raise KeyboardInterrupt
            return True, np.full((80, 120, 3), 100, np.uint8)

        def get(self, key):
            return {cv2.CAP_PROP_FPS: 1000.0}.get(key, -1.0)

    monkeypatch.setattr(cv2, 'VideoCapture', Camera)
    main('3')
    assert 'frames: 4, median latency' in capsys.readouterr().out
    frames, rate = read_video('outputs/camera-3.mp4')
    # As many as a thousand a second take, not as many as were annotated.
    assert rate == 1000
    assert len(frames) > 4


def test_a_camera_that_is_stopped_before_its_first_frame(main, monkeypatch):
    class Camera:
        def __init__(self, source):
            pass

        def read(self):
            return True, np.full((80, 120, 3), 100, np.uint8)

        def get(self, key):
            return -1.0

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cv2, 'VideoCapture', Camera)
    monkeypatch.setattr(Predictor, '__call__', stop)
    with pytest.raises(SystemExit, match='stopped'):
        main('3')


def test_what_is_read_is_not_written(tmp_path, main):
    (tmp_path / 'videos').mkdir()
    write_video(tmp_path / 'made.avi').rename(tmp_path / 'videos/video.mp4')
    (tmp_path / 'link.mp4').symlink_to(tmp_path / 'videos/video.mp4')
    (tmp_path / 'videos/link.mp4').symlink_to(tmp_path / 'videos/video.mp4')
    content = (tmp_path / 'videos/video.mp4').read_bytes()
    with pytest.raises(SystemExit, match=r'videos/link\.mp4 would overwrite what is read'):
        main(tmp_path / 'link.mp4', '--out', 'videos')
    assert (tmp_path / 'videos/video.mp4').read_bytes() == content


def test_a_name_that_opencv_dies_of(tmp_path, main):
    video = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.mp4'))
    write_video(tmp_path / 'video.avi').rename(video)
    with pytest.raises(SystemExit, match='is not in UTF-8: rename it'):
        main(video)


def test_no_such_camera(tmp_path, main):
    with pytest.raises(SystemExit, match=r'camera 97 gives no image: connect it'):
        main('97')
    assert not (tmp_path / 'outputs').exists()


def test_progress(tmp_path):
    detector = load_exported(constant_model(tmp_path / 'model.onnx', PREPROCESSING))
    predictor = Predictor(detector, 0.3, 4)
    for _ in range(3):
        predictor(np.zeros((80, 120, 3), np.uint8), 'name')
    bar, rate = predictor.progress().split(', ')
    assert bar == f'[{"#" * 22}{"." * 8}] 3/4'
    assert float(rate.removesuffix(' per second')) > 0
    predictor.total = None
    assert predictor.progress().startswith('3, ')
