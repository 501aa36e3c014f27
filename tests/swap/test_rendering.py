import pytest
from mmengine.config import Config

from mmdet_hadaptive.swap import (
    Edit,
    SwapError,
    apply_edits,
    load_source,
    plan_swap,
    render_config,
)

KEYS = ('optim_wrapper', 'paramwise_cfg', 'custom_keys')


def inherited(tmp_path, config, edits):
    """What MMEngine makes of the rendered file, which inherits the config."""
    base = tmp_path / 'base.py'
    base.write_text(''.join(f'{key} = {value!r}\n' for key, value in config.to_dict().items()))
    out = tmp_path / 'out.py'
    out.write_text(render_config('base.py', edits))
    return Config.fromfile(out, import_custom_modules=False)


def test_comments_say_why_and_neighbours_share_one():
    text = render_config(
        'base.py',
        [
            Edit(('model', 'neck', 'in_channels'), [8], 'A reason.'),
            Edit(('model', 'neck', 'out_channels'), [8], 'A reason.'),
            Edit(('load_from',), None, 'Another.'),
        ],
    )
    assert text.count('# A reason.\n') == 1
    assert 'in_channels=[8]' in text
    assert '# Another.\nload_from = None\n' in text


@pytest.mark.parametrize(
    'names', [['backbone.stage1', "it's", 'two\nlines', 'plain'], ['plain', 'class']]
)
def test_keys_that_are_no_names_are_written_as_strings(tmp_path, names):
    config = Config(
        dict(
            optim_wrapper=dict(paramwise_cfg=dict(custom_keys={k: dict(lr_mult=1) for k in names}))
        )
    )
    edits = [Edit((*KEYS, key, 'lr_mult'), 0.5, f'Why {key}.') for key in names]
    found = inherited(tmp_path, config, edits).optim_wrapper.paramwise_cfg.custom_keys
    assert found.to_dict() == {key: dict(lr_mult=0.5) for key in names}
    assert list(found) == names
    # The same where a whole dict is written at once.
    value = dict(_delete_=True, **{key: dict(decay_mult=0.0) for key in names})
    found = inherited(tmp_path, config, [Edit(KEYS, value, '')]).optim_wrapper
    assert found.paramwise_cfg.custom_keys.to_dict() == {k: dict(decay_mult=0.0) for k in names}


def test_values_of_all_types_come_back(tmp_path):
    values = dict(
        a=1, b=-2.5, c='text\n"quoted"', d=None, e=True, f=[1, (2,), ()], g={'x y': [dict(z=1)]}
    )
    values['h'] = float('inf')
    edits = [Edit(('model', key), value, '') for key, value in values.items()]
    config = Config(dict(model=dict(type='A')))
    assert inherited(tmp_path, config, edits).model.to_dict() == dict(type='A', **values)


@pytest.mark.parametrize('value', [object(), [print], {1: {2}}])
def test_what_is_no_text_is_named(value):
    with pytest.raises(SwapError, match=r'^model\.neck: .* cannot be written'):
        render_config('base.py', [Edit(('model', 'neck'), value, '')])


def test_of_a_list_of_necks_the_others_stay():
    source = 'mmdet::dyhead/atss_r50_fpn_dyhead_1x_coco.py'
    text = render_config(source, plan_swap(load_source(source)))
    fpn, dyhead = Config.fromstring(text, '.py').model.neck
    assert fpn.in_channels == [32, 64, 96, 128]
    assert dyhead == load_source(source).model.neck[1]


def test_lists_of_the_same_name_stay_apart(tmp_path):
    heads = [dict(in_channels=1, x=5), dict(in_channels=2)]
    config = Config(dict(model=dict(bbox_head=heads, roi_head=dict(bbox_head=heads))))
    edits = [
        Edit(('model', 'bbox_head', 0, 'in_channels'), 10, 'Why.'),
        Edit(('model', 'bbox_head', 1, 'in_channels'), 20, 'Why.'),
        Edit(('model', 'roi_head', 'bbox_head', 1, 'in_channels'), 30, 'Why.'),
    ]
    found = inherited(tmp_path, config, edits).model
    assert found.to_dict() == apply_edits(config, edits).model.to_dict()
    assert [head.in_channels for head in found.bbox_head] == [10, 20]
    assert [head.in_channels for head in found.roi_head.bbox_head] == [1, 30]
