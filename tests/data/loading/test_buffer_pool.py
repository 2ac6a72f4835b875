import torch

from videonet.data.loading import buffer_pool as buffer_pool_module
from videonet.data.loading.buffer_pool import BufferPool


def test_memory_comes_back_when_no_view_of_it_is_left():
    pool = BufferPool()
    source = torch.arange(12, dtype=torch.uint8).view(3, 4)
    first = pool.copy_of(source)
    place, view = first.data_ptr(), first[1:]
    del first
    second = pool.copy_of(source + 100)  # while the view lives
    assert second.data_ptr() != place and torch.equal(view, source[1:])
    del view
    third = pool.copy_of(source[:2] + 50)  # a smaller one fits too
    assert third.data_ptr() == place and torch.equal(third, source[:2] + 50)
    assert torch.equal(second, source + 100)


def test_larger_tensors_get_memory_of_their_own():
    pool = BufferPool()
    pool.copy_of(torch.zeros(4, dtype=torch.uint8))
    large = torch.arange(100, dtype=torch.uint8)
    assert torch.equal(pool.copy_of(large), large)


def test_very_large_memory_is_given_back(monkeypatch):
    monkeypatch.setattr(buffer_pool_module, "KEPT", 10)
    pool = BufferPool()
    pool.empty((10,))
    assert len(pool._free) == 1
    pool.empty((11,))
    assert not pool._free
