import io

import numpy as np
import pytest
from mmcv.image import imfrombytes
from PIL import Image, features

from mmdet_hadaptive.datasets import decoding
from mmdet_hadaptive.datasets.decoding import decode_image

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def encode(image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(buffer, **{'format': 'JPEG', 'quality': 90, **options})
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(exif=exif)


FILES = {
    'colour': encode(),
    'subsampled': encode(subsampling=2),
    'progressive': encode(progressive=True),
    'grey': encode(Image.fromarray(PIXELS).convert('L')),
    'CMYK': encode(Image.fromarray(PIXELS).convert('CMYK')),
    'RGB': encode(keep_rgb=True),
    'PNG': encode(format='PNG'),
    'XMP': encode(xmp=XMP),
    # Before a marker there may be bytes that fill up.
    'fill bytes before EXIF': turned(6).replace(b'\xff\xe1', b'\xff\xff\xff\xe1', 1),
    'ICC before EXIF': encode(icc_profile=b'\xff\xda' * 40, exif=turned(6)[24:60]),
    **{f'EXIF {n}': turned(n) for n in range(1, 9)},
}


@pytest.mark.parametrize('name', FILES)
def test_pixels_are_those_of_pillow(name):
    wanted = imfrombytes(FILES[name], backend='pillow')
    pixels = decode_image(FILES[name])
    assert np.array_equal(pixels, wanted)
    # Transforms of OpenCV write to them.
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def test_what_is_turned_is_turned():
    assert decode_image(turned(6)).shape == (51, 37, 3)
    assert decode_image(FILES['fill bytes before EXIF']).shape == (51, 37, 3)


def test_an_alpha_channel_is_dropped():
    grey = Image.fromarray(PIXELS).convert('L')
    clear = Image.new('L', grey.size, 0)
    wanted = imfrombytes(encode(grey, format='PNG'), backend='pillow')
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(Image.merge('LA', (grey, clear)), format='PNG')
    assert np.array_equal(decode_image(content), wanted)
    turned = encode(Image.merge('LA', (grey, clear)), format='PNG', exif=exif)
    assert np.array_equal(decode_image(turned), np.rot90(wanted, -1))
    colours = Image.merge('RGBA', (*Image.fromarray(PIXELS).split(), clear))
    assert np.array_equal(decode_image(encode(colours, format='PNG')), PIXELS[..., ::-1])


def test_without_simplejpeg(monkeypatch):
    wanted = decode_image(FILES['colour'])
    monkeypatch.setattr(decoding, 'simplejpeg', None)
    assert np.array_equal(decode_image(FILES['colour']), wanted)


@pytest.mark.parametrize('name', ['colour', 'subsampled', 'grey', 'RGB'])
def test_simplejpeg_decodes_ordinary_jpegs(name, monkeypatch):
    pytest.importorskip('simplejpeg')
    assert features.check('libjpeg_turbo')

    def refuse(*_, **__):
        raise AssertionError('decoded by Pillow')

    monkeypatch.setattr(decoding, 'imfrombytes', refuse)
    assert decode_image(FILES[name]).shape == PIXELS.shape


@pytest.mark.parametrize('name', ['colour', 'progressive', 'grey', 'PNG', 'EXIF 6'])
@pytest.mark.parametrize('part', [0.3, 0.9])
def test_truncated_files_are_refused(name, part):
    content = FILES[name]
    with pytest.raises((OSError, SyntaxError)):
        decode_image(content[: int(part * len(content))])


@pytest.mark.parametrize('content', [b'', b'\xff\xd8', b'\xff\xd8\xff', b'\xff\xd8\xff\xe1\0\0'])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(OSError, match=r'cannot identify image|truncated'):
        decode_image(content)
