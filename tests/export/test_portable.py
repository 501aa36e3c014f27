"""The selection without TopK and gather, against the one with them."""

import pytest
import torch
from torch import nn

from mmdet_hadaptive.export import fuse_for_inference
from mmdet_hadaptive.export.inference_layers import SelectedProducts
from mmdet_hadaptive.export.portable import PortableProducts, make_portable
from mmdet_hadaptive.layers import AdaptiveCrossHadamard
from mmdet_hadaptive.models import HadaptiveNet


@pytest.fixture(scope='module')
def net():
    torch.manual_seed(0)
    net = HadaptiveNet('small', out_indices=(3, 4))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    return net.eval()


def test_the_network_computes_the_same(net):
    image = torch.randn(1, 3, 96, 64)
    fused = fuse_for_inference(net, image)
    portable = make_portable(fuse_for_inference(net, image))
    kinds = {type(module) for module in portable.modules()}
    assert PortableProducts in kinds
    assert SelectedProducts not in kinds
    with torch.no_grad():
        for ours, theirs in zip(portable(image), fused(image), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize('selection', ['adaptive', 'fixed'])
def test_a_layer_computes_the_same(selection):
    ach = AdaptiveCrossHadamard(12, 5, selection=selection).eval()
    ach.norm = nn.Identity()
    products = SelectedProducts(ach, 8)
    portable = PortableProducts(products)
    x = torch.randn(1, 12, 4, 6)
    with torch.no_grad():
        assert torch.allclose(portable(x), products(x), atol=1e-6)


@pytest.fixture(scope='module')
def choose():
    ach = AdaptiveCrossHadamard(8, 5).eval()
    ach.norm = nn.Identity()
    portable = PortableProducts(SelectedProducts(ach, 8))
    # Buffers and all.
    return lambda scores: portable.to(scores.dtype).choose(scores[None])[0]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize(
    'scores',
    [
        [0.5, 3.0, -1.0, 2.0, 0.25, -7.0, 1.0, 0.0],
        # Far apart, and as near as half precision tells apart.
        [0.0, 6e-8, -1.0, -1.001, -6e4, -100.0, 6e4, -6e-8],
    ],
)
def test_ranks(choose, dtype, scores):
    scores = torch.tensor(scores, dtype=dtype)
    choice = choose(scores)
    assert choice.dtype == dtype
    assert choice.argmax(1).tolist() == scores.topk(5).indices.tolist()
    assert choice.unique().tolist() == [0, 1]
    assert choice.sum(1).tolist() == [1] * 5


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_ties_are_broken_by_the_index(choose, dtype):
    for scores, expected in [
        ([1.0, 2, 1, 2, 1, 2, 0, 0], [1, 3, 5, 0, 2]),
        ([0.0] * 8, [0, 1, 2, 3, 4]),
        ([-1e-3] * 4 + [3.0] * 4, [4, 5, 6, 7, 0]),
    ]:
        choice = choose(torch.tensor(scores, dtype=dtype))
        assert choice.argmax(1).tolist() == expected
        assert choice.sum(1).tolist() == [1] * 5
        assert choice.unique().tolist() == [0, 1]


def test_what_was_not_fused_is_refused():
    net = HadaptiveNet('small', out_indices=(3,), norm_cfg=dict(type='GN', num_groups=2))
    with pytest.raises(ValueError, match=r'stage3\.1\S* could not be fused.*batch normalisation'):
        make_portable(fuse_for_inference(net, torch.zeros(1, 3, 32, 32)))
