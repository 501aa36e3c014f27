import pytest
import torch

from research.benchmark import performance


@pytest.mark.usefixtures('interpreted_kernels')
def test_kernels_and_their_copy(monkeypatch):
    copied = []
    copy = torch.Tensor.copy_
    monkeypatch.setattr(torch.Tensor, 'copy_', lambda a, b: copied.append(b.numel()) or copy(a, b))
    for other in ('torch', 'copy'):
        functions = performance.make_kernels(
            4, 3, 2, dtype=torch.float16, channels_last=True, other=other, batch=2, device='cpu'
        )
        for function in functions.values():
            function()
    # Planes of a map of 4 channels and its 3 products: u and y, then the gradient of y, the 3
    # selected channels, and the gradient of u.
    assert copied[-1] == (4 + 7 + 7 + 3 + 4) * 2 * 4 // 2


def test_peak_memory_is_what_is_held_at_once():
    def function():
        large = torch.ones(2**20)
        del large
        small = [torch.ones(2**18) for _ in range(2)]
        del small

    # Of single precision: four mebibytes, then two of one each.
    assert 2**22 <= performance.measure_peak_memory(function) < 1.2 * 2**22
