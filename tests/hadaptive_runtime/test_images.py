import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from hadaptive_runtime import ExportError
from hadaptive_runtime.images import is_image, read_image

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.dstack([GREY, GREY.T, GREY[::-1]])


@pytest.mark.parametrize(
    ('suffix', 'pixels'),
    [
        ('.png', GREY.astype(np.uint16) * 16),
        ('.png', COLOURS.astype(np.uint16) * 257),
        ('.tif', COLOURS.astype(np.uint16)),
        ('.tif', COLOURS.astype(np.float32) / 255),
        ('.tif', GREY.astype(np.float32)),
        ('.tif', COLOURS.astype(np.float64)),
        ('.tif', GREY.astype(np.int16)),
        ('.tif', COLOURS.astype(np.int32)),
        ('.tif', GREY.astype(np.int8)),
        ('.jp2', COLOURS.astype(np.uint16).repeat(8, 0).repeat(8, 1)),
        ('.pgm', GREY.astype(np.uint16)),
        ('.hdr', COLOURS.astype(np.float32)),
    ],
)
def test_images_of_other_depths_are_refused(tmp_path, make_detector, suffix, pixels):
    file = tmp_path / f'deep{suffix}'
    assert cv2.imwrite(str(file), pixels)
    for read in (read_image, make_detector()):
        with pytest.raises(ExportError) as error:
            read(file)
        reason = f'{file}: values of the type {pixels.dtype}, but only images with 8'
        assert reason in str(error.value)
        assert '\n' not in str(error.value)
    # What it says to do.
    white = float(pixels.max()) or 1.0
    deep = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tmp_path / 'new.png'), cv2.convertScaleAbs(deep, alpha=255 / white))
    assert read_image(tmp_path / 'new.png').max() > 250


@pytest.mark.parametrize('mode', ['RGB', 'L', '1', 'P', 'RGBA', 'LA', 'CMYK', 'I;16', 'I', 'F'])
def test_only_images_of_eight_bits_are_read(tmp_path, mode):
    deep = {'I;16': np.uint16, 'I': np.int32, 'F': np.float32}
    image = Image.fromarray(GREY.astype(deep[mode])) if mode in deep else Image.fromarray(COLOURS)
    image.convert(mode).save(tmp_path / 'image.tif')
    if mode in deep:
        with pytest.raises(ExportError, match='only images with 8 bits'):
            read_image(tmp_path / 'image.tif')
        return
    image = read_image(tmp_path / 'image.tif')
    assert image.shape == COLOURS.shape
    if mode == 'RGB':
        assert np.array_equal(image, COLOURS[..., ::-1])


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize(('mode', 'colours'), [('RGBA', COLOURS), ('LA', np.dstack([GREY] * 3))])
def test_colours_are_not_multiplied_by_alpha(tmp_path, suffix, mode, colours):
    bands = [*Image.fromarray(colours).split()[: len(mode) - 1], Image.fromarray(GREY)]
    Image.merge(mode, bands).save(tmp_path / f'image{suffix}')
    assert np.array_equal(read_image(tmp_path / f'image{suffix}'), colours[..., ::-1])


def test_alpha_of_a_tiff_whose_numbers_begin_with_the_highest_byte(tmp_path):
    pixels = np.dstack([COLOURS, GREY])
    # Behind the tags the bits of each channel, then the pixels.
    sizes = {256: 16, 257: 16, 259: 1, 262: 2, 273: 142, 277: 4, 278: 16, 279: pixels.size, 338: 2}
    tags = [struct.pack('>HHLHH', tag, 3, 1, size, 0) for tag, size in sizes.items()]
    tags.insert(2, struct.pack('>HHLL', 258, 3, 4, 134))
    bits = struct.pack('>L4H', 0, 8, 8, 8, 8)
    file = tmp_path / 'image.tif'
    file.write_bytes(
        struct.pack('>2sHLH', b'MM', 42, 8, 10) + b''.join(tags) + bits + pixels.tobytes()
    )
    assert np.array_equal(Image.open(file), pixels)
    assert np.array_equal(read_image(file), COLOURS[..., ::-1])


def test_why_an_image_is_refused(tmp_path):
    file = tmp_path / 'image.png'
    file.touch()
    with pytest.raises(ExportError, match='empty: replace it'):
        read_image(file)
    file.write_text('text')
    with pytest.raises(ExportError, match='truncated, or no image that OpenCV reads'):
        read_image(file)
    # The beginning of one with more pixels than OpenCV decodes by default.
    file.write_bytes(b'P5 40000 30000 255\n')
    with pytest.raises(ExportError, match='pixels <= CV_IO_MAX_IMAGE_PIXELS') as error:
        read_image(file)
    assert 'let OPENCV_IO_MAX_IMAGE_PIXELS in the environment be larger' in str(error.value)


def test_images_are_known_by_suffix_or_content(tmp_path):
    content = cv2.imencode('.png', COLOURS)[1].tobytes()
    for name, expected in {'a.JPE': True, 'b.jfif': True, 'frame': True, 'c.txt': True}.items():
        (tmp_path / name).write_bytes(content)
        assert is_image(tmp_path / name) == expected
    (tmp_path / 'd.txt').write_text('text')
    assert not is_image(tmp_path / 'd.txt')
