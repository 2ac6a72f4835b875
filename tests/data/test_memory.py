import torch

from videonet.data import memory as memory_module
from videonet.data.memory import RecycledMemory


def test_memory_comes_back_when_no_view_of_it_is_left():
    memory = RecycledMemory()
    source = torch.arange(12, dtype=torch.uint8).view(3, 4)
    first = memory.copy_of(source)
    place, view = first.data_ptr(), first[1:]
    del first
    second = memory.copy_of(source + 100)  # while the view lives
    assert second.data_ptr() != place and torch.equal(view, source[1:])
    del view
    third = memory.copy_of(source[:2] + 50)  # a smaller one fits too
    assert third.data_ptr() == place and torch.equal(third, source[:2] + 50)
    assert torch.equal(second, source + 100)


def test_larger_tensors_get_memory_of_their_own():
    memory = RecycledMemory()
    memory.copy_of(torch.zeros(4, dtype=torch.uint8))
    large = torch.arange(100, dtype=torch.uint8)
    assert torch.equal(memory.copy_of(large), large)


def test_very_large_memory_is_given_back(monkeypatch):
    monkeypatch.setattr(memory_module, "KEPT", 10)
    memory = RecycledMemory()
    memory.empty((10,))
    assert len(memory._free) == 1
    memory.empty((11,))
    assert not memory._free
