from mmengine.config import Config

from mmdet_hadaptive.swap.edits import Edit, apply_edits, loads_weights


def test_edits_merge_as_configs_do_and_leave_the_original():
    config = Config(dict(model=dict(neck=dict(type='A', width=1), heads=[dict(x=1), dict(y=2)])))
    edits = [
        Edit(('model', 'neck'), dict(width=2), ''),
        Edit(('model', 'heads', 1, 'y'), 3, ''),
        Edit(('model', 'backbone'), dict(_delete_=True, type='B'), ''),
        Edit(('optim_wrapper', 'paramwise_cfg', 'bias'), 0.0, ''),
    ]
    changed = apply_edits(config, edits)
    assert changed.model.to_dict() == dict(
        neck=dict(type='A', width=2),
        heads=[dict(x=1), dict(y=3)],
        backbone=dict(type='B'),
    )
    assert changed.optim_wrapper.paramwise_cfg.bias == 0.0
    replaced = apply_edits(config, [Edit(('model', 'neck'), dict(_delete_=True, type='C'), '')])
    assert replaced.model.neck == dict(type='C')
    assert config.model.neck == dict(type='A', width=1)
    assert config.model.heads[1] == dict(y=2)


def test_weights_are_found_in_lists_too():
    pretrained = dict(type='Pretrained', checkpoint='old.pth')
    assert loads_weights(pretrained)
    assert loads_weights([dict(type='Xavier', layer='Conv2d'), pretrained])
    assert loads_weights(dict(checkpoint='https://nowhere.invalid/pvt.pth'))
    assert not loads_weights(dict(type='Xavier', layer='Conv2d'))
    assert not loads_weights(None)
