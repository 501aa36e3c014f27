import mmengine.registry as root
import pytest
from mmengine.registry import Registry


@pytest.mark.parametrize(
    ('registry', 'name'),
    [
        ('MODELS', 'RetinaNet'),
        ('MODELS', 'HadaptiveNet'),
        ('MODELS', 'AdaptiveBottleneck'),
        ('MODELS', 'BackboneWithACH'),
        ('HOOKS', 'EpochSeedHook'),
        ('DATASETS', 'CheckedCocoDataset'),
        ('TRANSFORMS', 'PackDetInputs'),
        ('METRICS', 'CocoMetric'),
    ],
)
@pytest.mark.parametrize('scope', ['mmdet', 'mmdet_hadaptive'])
def test_both_scopes_have_what_configs_name(registry, name, scope):
    with getattr(root, registry).switch_scope_and_registry(scope) as found:
        assert found.scope == scope
        # Of MMDetection, and not only looked up in the root.
        assert found.get(name) is not None
        assert found.get(name) is found.get(f'mmdet.{name}')


def test_every_registry_of_mmengine_has_the_scope():
    for name, registry in vars(root).items():
        if isinstance(registry, Registry):
            with registry.switch_scope_and_registry('mmdet_hadaptive') as found:
                assert found.scope == 'mmdet_hadaptive', name
