import pytest
import torch

from research.packing import pack_weights


def test_packed_in_half_precision():
    state = dict(weight=torch.randn(4, 3), running_var=torch.full((4,), 1e6), count=torch.tensor(3))
    packed = pack_weights(state, dict(arch='small'))
    assert packed['meta'] == dict(arch='small')
    assert packed['state_dict']['weight'].dtype == torch.float16
    # Statistics may be larger than float16 has room for.
    assert torch.equal(packed['state_dict']['running_var'], state['running_var'])
    assert packed['state_dict']['count'] == 3


@pytest.mark.parametrize('value', [1e5, float('nan')])
def test_what_half_precision_does_not_hold_is_refused(value):
    with pytest.raises(ValueError, match=r'weight has values of up to .*float16 ends at 65504'):
        pack_weights(dict(weight=torch.full((2, 2), value)), {})
