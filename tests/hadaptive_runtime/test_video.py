"""Videos and cameras in tools/predict.py."""

import errno
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path

import cv2
import numpy as np
import pytest

from hadaptive_runtime import ExportError
from hadaptive_runtime import predict as command
from hadaptive_runtime.predict import Predictor
from hadaptive_runtime.video import VideoSource, VideoWriter


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

    def fail(path, missing_ok=False):
        raise OSError(errno.EROFS, 'Read-only file system')

    video = write_video(tmp_path / 'video.avi')
    writer_class = cv2.VideoWriter
    monkeypatch.setattr(cv2, 'VideoWriter', FullDisk)
    if not lost:
        monkeypatch.setattr(Path, 'unlink', fail)
    with pytest.raises(SystemExit, match=r'outputs/video\.avi\.mp4 cannot be written: make room'):
        main(video)
    assert list((tmp_path / 'outputs').iterdir()) == []


@pytest.fixture
def interrupts():
    """Signals as in a terminal; pytest-xdist's processes ignore Ctrl+C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    term = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGTERM, term)


@pytest.mark.parametrize('moment', ['read', 'write', 'twice'])
@pytest.mark.usefixtures('interrupts')
def test_a_camera_is_recorded_until_it_is_stopped(tmp_path, main, monkeypatch, capsys, moment):
    capture_class, writer_class = cv2.VideoCapture, cv2.VideoWriter

    class Camera:
        def __init__(self, source):
            assert source == 3
            self.count = 0

        def read(self):
            self.count += 1
            # Several frames of a camera of 1,000 a second.
            time.sleep(0.003)
            if self.count == 4:
                monkeypatch.setattr(cv2, 'VideoCapture', capture_class)
                if moment == 'read':
                    signal.raise_signal(signal.SIGINT)
            # Without an end the test would never fail.
            return self.count < 100, np.full((80, 120, 3), 100, np.uint8)

        def get(self, key):
            return {cv2.CAP_PROP_FPS: 1000.0}.get(key, -1.0)

    class Writer:
        def __init__(self, *args):
            self.writer = writer_class(*args)
            self.isOpened = self.writer.isOpened

        def write(self, frame):
            self.writer.write(frame)
            if camera.count == 4 and moment != 'read':
                signal.raise_signal(signal.SIGINT)

        def release(self):
            if moment == 'twice' and self.isOpened():
                signal.raise_signal(signal.SIGINT)
            self.writer.release()

    camera = Camera(3)
    monkeypatch.setattr(cv2, 'VideoCapture', lambda source: camera)
    monkeypatch.setattr(cv2, 'VideoWriter', Writer)
    main('3')
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert 'frames: 4, median latency' in capsys.readouterr().out
    (recording,) = Path('outputs').iterdir()
    assert re.fullmatch(r'camera-3_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.mp4', recording.name)
    frames, rate = read_video(recording)
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


def test_progress(make_detector):
    predictor = Predictor(make_detector(), 0.3, 4)
    for _ in range(3):
        predictor(np.zeros((80, 120, 3), np.uint8), 'name')
    bar, rate = predictor.progress().split(', ')
    assert bar == f'[{"#" * 22}{"." * 8}] 3/4'
    assert float(rate.removesuffix(' per second')) > 0
    predictor.total = None
    assert predictor.progress().startswith('3, ')


def test_cameras_may_run_for_months(main, opened, monkeypatch, capsys):
    class Watched(Predictor):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    made = []
    monkeypatch.setattr(command, 'Predictor', Watched)
    monkeypatch.setattr(command, '_TIMED', 10)
    address = 'rtsp://host/live'
    for formats, kept in ((['pictures'], 0), (['pictures', 'csv'], 30)):
        opened(Frames([0] * 30, 10), address)
        main(address, '--save', *formats)
        assert capsys.readouterr().out.startswith('frames: 30, ')
        assert len(made[-1].predictions) == kept
        assert len(made[-1].seconds) == 10


class Frames:
    """A video of grey frames, of which the times, and what a container announces, are given."""

    def __init__(self, times, rate=-1.0, count=-1.0, sizes=((80, 120),), end=None):
        self.times = times
        self.announced = {cv2.CAP_PROP_FPS: rate, cv2.CAP_PROP_FRAME_COUNT: count}
        self.sizes = sizes
        self.end = end
        self.number = -1

    def __call__(self, source):
        return copy(self)

    def grab(self):
        self.number += 1
        return self.number < len(self.times)

    def read(self):
        if not self.grab():
            if self.end is not None:
                raise self.end
            return False, None
        shade = 10 * (self.number % 20)
        size = self.sizes[self.number % len(self.sizes)]
        return True, np.full((*size, 3), shade, np.uint8)

    def get(self, key):
        if key == cv2.CAP_PROP_POS_MSEC:
            return 1000 * self.times[min(self.number, len(self.times) - 1)]
        return self.announced[key]

    def release(self):
        pass


@pytest.fixture
def opened(monkeypatch):
    """Lets OpenCV read given frames from a source; what is written is read as ever."""
    capture_class = cv2.VideoCapture

    def open_frames(frames, name='given.mp4'):
        def capture(source, *options):
            return frames(source) if source == name else capture_class(source, *options)

        monkeypatch.setattr(cv2, 'VideoCapture', capture)

    return open_frames


DENSE_THEN_RARE = [*(n / 30 for n in range(30)), *(1 + n / 6 for n in range(30))]


@pytest.mark.parametrize(
    ('times', 'rate', 'count', 'written_rate', 'length'),
    [
        # The average of a telephone, the clock of a browser's recorder, and one of a broadcast.
        (DENSE_THEN_RARE, 10.71, 60, 30, 5.87),
        (DENSE_THEN_RARE, 1000, -2.8e17, 30, 5.87),
        ([n / 25 for n in range(50)], 90000, 50, 25, 2.0),
        ([n / 25 for n in range(50)], float('nan'), 0, 25, 2.0),
        # By the millisecond.
        ([round(n / 29.97, 3) for n in range(60)], 29.97, 60, 29.97, 2.0),
        # A clock that stands still, starts late, goes back, or jumps.
        ([0.0] * 20, 10, 20, 10, 2.0),
        ([100 + n / 10 for n in range(20)], 10, 20, 10, 2.0),
        ([*(n / 10 for n in range(10)), *(n / 10 for n in range(10))], 10, 20, 10, 2.0),
        ([*(n / 10 for n in range(10)), *(9e4 + n / 10 for n in range(10))], 10, 20, 10, 2.0),
        ([0.0], 25, 1, 25, 0.04),
    ],
)
def test_frames_keep_their_times(
    tmp_path, main, opened, times, rate, count, written_rate, length, capsys
):
    (tmp_path / 'given.mp4').touch()
    opened(Frames(times, rate, count))
    main('given.mp4')
    assert capsys.readouterr().out.startswith(f'frames: {len(times)}, ')
    frames, found_rate = read_video('outputs/given.mp4')
    assert found_rate == pytest.approx(written_rate, abs=0.02)
    assert len(frames) / found_rate == pytest.approx(length, abs=0.05)
    # Each is there, in its order, as long as until the next one.
    shades = [round(float(frame[70, 60].mean()) / 10) for frame in frames]
    steps = np.diff(shades)
    assert (steps != 0).sum() == len(times) - 1
    if times == DENSE_THEN_RARE:
        assert shades[:33] == [*range(20), *range(11), 10, 10]


def test_times_of_frames_are_in_the_table(tmp_path, main, opened):
    (tmp_path / 'given.mp4').touch()
    opened(Frames([0, 0.04, 0.5], 25, 3))
    main('given.mp4', '--save', 'csv')
    lines = (tmp_path / 'outputs/detections.csv').read_text().splitlines()
    assert [line.split(',')[:3] for line in lines[1::2]] == [
        ['given.mp4', '0', '0.000'],
        ['given.mp4', '1', '0.040'],
        ['given.mp4', '2', '0.500'],
    ]
    assert [path.name for path in (tmp_path / 'outputs').iterdir()] == ['detections.csv']


@pytest.mark.parametrize(
    ('rate', 'count', 'begin', 'note'),
    [
        # As long as announced, whatever the number of frames.
        (30, 176, 0, ''),
        (30, -2.8e17, 0, ''),
        (30, 3176, 100, ''),
        (30, 360, 0, 'note: given.mp4 announces 12.0 seconds and ends after 5.9 (60 frames): '),
    ],
)
def test_what_containers_announce_is_a_guess(
    tmp_path, main, opened, rate, count, begin, note, capsys
):
    (tmp_path / 'given.mp4').touch()
    opened(Frames([begin + time for time in DENSE_THEN_RARE], rate, count))
    main('given.mp4')
    said = capsys.readouterr().err
    assert said.startswith(note)
    assert bool(said) == bool(note)


def test_q_keeps_what_was_written(tmp_path, main, opened, monkeypatch, capsys):
    (tmp_path / 'given.mp4').touch()
    opened(Frames([n / 10 for n in range(20)], 10, 20))
    keys = iter([255, -1, 255, ord('q') | 0x100000])
    monkeypatch.setattr(cv2, 'imshow', lambda *args: None)
    monkeypatch.setattr(cv2, 'waitKey', lambda delay: next(keys))
    main('given.mp4', '--show')
    written, said = capsys.readouterr()
    assert written.startswith('frames: 4, ')
    assert not said
    assert len(read_video('outputs/given.mp4')[0]) == 4


def test_a_file_that_is_stopped_leaves_the_old_one(tmp_path, main, opened):
    (tmp_path / 'given.mp4').touch()
    (tmp_path / 'outputs').mkdir()
    (tmp_path / 'outputs/given.mp4').write_text('old')
    opened(Frames([0, 0.1, 0.2], 10, 20, end=KeyboardInterrupt()))
    with pytest.raises(SystemExit, match='stopped'):
        main('given.mp4')
    assert [path.name for path in (tmp_path / 'outputs').iterdir()] == ['given.mp4']
    assert (tmp_path / 'outputs/given.mp4').read_text() == 'old'


def test_a_stream_that_ends_is_kept(tmp_path, main, opened, capsys):
    address = 'rtsp://user:secret@10.0.0.1:554/live'
    opened(Frames([0, 0, 0], 1000), address)
    main(address)
    written, said = capsys.readouterr()
    assert 'written: outputs/10.0.0.1-554-live_' in written
    assert said == 'note: rtsp://10.0.0.1:554/live ended by itself after 3 frames\n'
    main(address, '--save', 'pictures', 'csv')
    first, second = sorted(Path('outputs').glob('*.mp4'))
    assert read_video(first)[0]
    assert read_video(second)[0]
    assert f'\n{second.name},0,0.000,cat,' in Path('outputs/detections.csv').read_text()
    opened(Frames([]), address)
    with pytest.raises(
        SystemExit, match=r'^error: rtsp://10\.0\.0\.1:554/live gives no image: see'
    ):
        main(address)


def test_a_video_that_cannot_be_written_leaves_the_others(tmp_path, main, monkeypatch):
    def fail(self):
        raise ExportError('no room')

    first, second = (write_video(tmp_path / name) for name in ('a.avi', 'b.avi'))
    finish = VideoWriter.finish
    monkeypatch.setattr(
        VideoWriter, 'finish', lambda self: (fail if 'a.avi' in str(self._file) else finish)(self)
    )
    with pytest.raises(SystemExit, match=r'^error: no room$'):
        main(first, second, '--save', 'pictures', 'csv')
    assert {file.name for file in Path('outputs').iterdir()} == {'b.avi.mp4', 'detections.csv'}
    table = Path('outputs/detections.csv').read_text()
    assert 'a.avi' in table
    assert 'b.avi' in table


class Terminating(Frames):
    """A camera during whose third frame SIGTERM comes."""

    def read(self):
        if self.number == 2:
            signal.raise_signal(signal.SIGTERM)
        return super().read()


@pytest.mark.usefixtures('interrupts')
def test_sigterm_keeps_a_recording_and_ends_the_program(main, opened, capsys):
    opened(Terminating([0] * 50, 10), 'rtsp://host/live')
    main('rtsp://host/live', 'rtsp://host/next', '--save', 'pictures', 'csv')
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert capsys.readouterr().out.startswith('frames: 4, ')
    table, recording = sorted(Path('outputs').iterdir())
    assert table.name == 'detections.csv'
    assert recording.name.startswith('host-live_')
    assert recording.suffix == '.mp4'


@pytest.mark.usefixtures('interrupts')
def test_sigterm_ends_the_program_if_the_recording_cannot_be_written(main, opened, monkeypatch):
    def fail(self):
        raise ExportError('no room')

    monkeypatch.setattr(VideoWriter, 'finish', fail)
    opened(Terminating([0] * 50, 10), 'rtsp://host/live')
    with pytest.raises(SystemExit, match=r'^error: no room$'):
        main('rtsp://host/live', 'rtsp://host/next', '--save', 'pictures', 'csv')
    assert [file.name for file in Path('outputs').iterdir()] == ['detections.csv']


def test_a_stream_in_a_thread(main, opened, capsys):
    opened(Frames([0, 0, 0], 10), 'rtsp://host/live')
    with ThreadPoolExecutor(1) as pool:
        pool.submit(main, 'rtsp://host/live').result()
    assert capsys.readouterr().out.startswith('frames: 3, ')


def test_a_file_behind_an_address_keeps_its_times(main, opened, capsys):
    address = 'http://host/given.mp4'
    opened(Frames([0, 0.1, 1.0], 10, 11), address)
    main(address)
    assert not capsys.readouterr().err
    assert len(read_video('outputs/host-given.mp4')[0]) == 11


def test_frames_that_come_too_fast_for_a_live_video_are_left_out(tmp_path):
    picture = np.zeros((80, 120, 3), np.uint8)
    for keep_all, expected in ((False, 11), (True, 101)):
        with VideoWriter(tmp_path / 'a.mp4', 10, keep_all) as writer:
            for number in range(101):
                writer.write(picture, number / 100)
            writer.finish()
        assert len(read_video(tmp_path / 'a.mp4')[0]) == expected


def test_videos_of_one_name_do_not_mix(tmp_path):
    pictures = [np.full((80, 120, 3), shade, np.uint8) for shade in (50, 200)]
    writers = [VideoWriter(tmp_path / 'a.mp4', 10, True) for _ in pictures]
    for writer, picture in zip(writers, pictures, strict=True):
        writer.write(picture, 0)
    for writer, picture in zip(writers, pictures, strict=True):
        with writer:
            writer.finish()
        (frame,) = read_video(tmp_path / 'a.mp4')[0]
        assert np.abs(frame - picture.astype(int)).max() < 8


def test_frames_of_another_size_are_resized(tmp_path, main, opened):
    (tmp_path / 'given.mp4').touch()
    opened(Frames([0, 0.1, 0.2], 10, 3, sizes=[(80, 120), (40, 60), (90, 30)]))
    main('given.mp4')
    assert [frame.shape for frame in read_video('outputs/given.mp4')[0]] == [(80, 120, 3)] * 3


def test_a_folder_with_videos(tmp_path, main, capsys):
    (tmp_path / 'videos').mkdir()
    write_video(tmp_path / 'videos/a.avi', 3)
    write_video(tmp_path / 'videos/b.avi', 2)
    main('videos')
    assert [line[:10] for line in capsys.readouterr().out.splitlines()] == [
        'frames: 3,',
        'frames: 2,',
    ]
    files = sorted(path.name for path in (tmp_path / 'outputs').iterdir())
    assert files == ['a.avi.mp4', 'b.avi.mp4']


def test_all_but_damaged_videos_are_predicted(tmp_path, main):
    (tmp_path / 'videos').mkdir()
    for name in 'ac':
        write_video(tmp_path / f'videos/{name}.avi', 2)
    (tmp_path / 'videos/b.avi').write_bytes((tmp_path / 'videos/a.avi').read_bytes()[:99])
    (tmp_path / 'videos/d.png').touch()
    with pytest.raises(SystemExit) as error:
        main('videos', '--save', 'pictures', 'csv')
    assert str(error.value) == (
        'error: videos/b.avi cannot be read as a video, or is truncated: replace it; '
        '1 of 1 images have failed: 1 (d.png): empty: replace it'
    )
    files = sorted(path.name for path in (tmp_path / 'outputs').iterdir())
    assert files == ['a.avi.mp4', 'c.avi.mp4', 'detections.csv']
    rows = (tmp_path / 'outputs/detections.csv').read_text().splitlines()
    assert [row[:7] for row in rows[1::2]] == ['a.avi,0', 'a.avi,1', 'c.avi,0', 'c.avi,1']


def test_the_times_of_a_real_file(tmp_path):
    video = VideoSource(write_video(tmp_path / 'video.avi', 6))
    assert (video.rate, video.num_frames, video.is_live) == (5, 6, False)
    assert [seconds for _, seconds in video] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert video.note is None
