import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from tiny_imagenet import make_tiny_imagenet

from research.tiny_imagenet import TinyImageNet

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path):
    return make_tiny_imagenet(tmp_path)


@pytest.mark.parametrize(('split', 'count'), [('train', 6), ('val', 3)])
def test_labels_are_those_of_the_sorted_names(root, split, count):
    dataset = TinyImageNet(split, data_root=str(root))
    assert len(dataset) == count
    assert dataset.metainfo['classes'] == ('thing n0', 'thing n1', 'thing n2')
    for i in range(count):
        entry = dataset.get_data_info(i)
        name = re.search(r'(n\d)(_\d)?\.JPEG$', entry['img_path'])[1]
        assert entry['gt_label'] == int(name[1])


@pytest.mark.parametrize('split', ['train', 'val'])
def test_the_config_feeds_the_classifier_rgb(root, split):
    config = Config.fromfile(
        ROOT / 'research/configs/pretrain/hadaptive-s_1xb128-15e_tiny-imagenet.py'
    )
    init_default_scope(config.default_scope)
    loader = config[f'{split}_dataloader']
    dataset = DATASETS.build({**loader.dataset, 'data_root': str(root)})
    packed = dataset[len(dataset) - 1]
    assert packed['data_samples'].gt_label.item() == (2 if split == 'train' else 1)
    batch = pseudo_collate([packed])
    preprocessor = MODELS.build({'type': 'ClsDataPreprocessor', **config.data_preprocessor})
    image = preprocessor(batch)['inputs'][0]
    assert image.shape == (3, 64, 64)
    shade = 160 if split == 'train' else 80
    expected = [(shade - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    assert image.mean((1, 2)).tolist() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize('missing', ['wnids.txt', 'val/val_annotations.txt'])
def test_another_layout_is_named(root, missing):
    (root / missing).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(missing)):
        TinyImageNet('val', data_root=str(root))


def test_the_split_is_named(root):
    with pytest.raises(ValueError, match="'train' or 'val', got 'test'"):
        TinyImageNet('test', data_root=str(root))
