from mmengine.config import ConfigDict

from mmdet_hadaptive.utils.configs import coco_datasets, walk


def test_walk_finds_every_dictionary_with_its_keys():
    config = {'a': {'b': [{'c': 1}, ({'d': {}},)]}, 'e.f': {'g': 'text'}, 'h': [1, 'text']}
    assert dict(walk(config, ('root',))) == {
        ('root',): config,
        ('root', 'a'): config['a'],
        ('root', 'a', 'b', 0): {'c': 1},
        ('root', 'a', 'b', 1, 0): {'d': {}},
        ('root', 'a', 'b', 1, 0, 'd'): {},
        ('root', 'e.f'): {'g': 'text'},
    }
    assert [path for path, _ in walk([{}, {}])] == [(0,), (1,)]
    assert list(walk(None)) == []


def test_walk_goes_into_what_has_been_put_in_and_passes_what_has_been_taken_out():
    config = dict(old=dict(x=1), kept=dict(x=2))
    seen = []
    for path, node in walk(config):
        seen.append(path)
        if 'old' in node:
            del node['old']
            node['new'] = dict(y=dict())
    assert seen == [(), ('kept',), ('new',), ('new', 'y')]


def test_coco_datasets_are_found_below_wrappers():
    first, second = (dict(type='CocoDataset', ann_file=f'{name}.json') for name in 'ab')
    wrapped = ConfigDict(
        type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[first, second])
    )
    assert coco_datasets(wrapped) == [first, second]
    assert coco_datasets(ConfigDict(first)) == [first]
    assert coco_datasets(ConfigDict(type='ImageNet', data_root='x')) == []
