"""Memory kept between evaluations: arrays never share it while somebody holds them, and get it again afterwards."""

import random
import sys
import threading

import numpy as np
import pytest

from kernels import Cpu
from kernels.cpu.arena import Arena

needs_reference_counts = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="elsewhere nobody knows when an array is gone"
)


def filled(arena, size, value):
    array = arena.empty((size,), np.uint8)
    array[...] = value
    return array


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("seed", range(5))
def test_no_array_is_overwritten_while_it_is_held(seed):
    chance, arena = random.Random(seed), Arena(0)
    for _ in range(20):
        held = {}
        for step in range(200):
            if held and chance.random() < 0.45:
                value, array = held.popitem() if chance.random() < 0.5 else (key := next(iter(held)), held.pop(key))
                assert (array == value).all()
            elif value := step % 251 + 1:
                held[value] = filled(arena, chance.randrange(3000), value)
        for value, array in held.items():
            assert (array == value).all()


def test_an_array_is_as_asked_for():
    arena = Arena(0)
    for _ in range(2):
        arrays = [arena.empty((3, 4, 5), np.complex64), arena.empty((0, 7), np.float64), arena.empty((), np.uint8)]
        assert [array.shape for array in arrays] == [(3, 4, 5), (0, 7), ()]
        assert [array.dtype for array in arrays] == [np.complex64, np.float64, np.uint8]
        assert all(array.flags.c_contiguous and array.flags.writeable and array.flags.aligned for array in arrays)


@needs_reference_counts
def test_the_second_time_all_lies_in_one_block():
    arena = Arena(0)

    def evaluation():
        first = arena.empty((1000,), np.float32)
        second = arena.empty((2000,), np.float32)
        places = [address(first), address(second)]
        del first
        third = arena.empty((900,), np.float32)  # where the first was
        return [*places, address(third)]

    outside = evaluation()
    inside = evaluation()
    assert inside[1] - inside[0] == 4032  # the first, and what is left of its last cache line
    assert inside[2] == inside[0]
    assert evaluation() == inside != outside


@needs_reference_counts
def test_a_view_holds_the_place():
    arena = Arena(0)
    filled(arena, 5000, 0)
    row = filled(arena, 3000, 7).reshape(3, 1000)[1]
    others = [filled(arena, 1000, 9) for _ in range(5)]
    assert (row == 7).all()
    assert not any(np.shares_memory(row, other) for other in others)


@needs_reference_counts
def test_an_array_outlives_its_arena():
    arena = Arena(0)
    filled(arena, 5000, 0)
    array = filled(arena, 3000, 7)
    del arena
    assert (array == 7).all()


@needs_reference_counts
def test_little_memory_is_left_to_the_c_library():
    arena = Arena(10_000)
    for _ in range(3):
        few = [filled(arena, 4000, 1), filled(arena, 4000, 1)]
        del few
    assert arena._block.size == 0
    several = [filled(arena, 4000, 1) for _ in range(3)]
    del several
    filled(arena, 1, 1)
    assert arena._block.size == 3 * 4032


@needs_reference_counts
def test_a_block_given_back_is_there_again_with_the_next_array():
    arena = Arena(0)
    filled(arena, 5000, 1)
    held = filled(arena, 3000, 2)
    arena.give_back()
    assert arena._block.size == 0
    outside = filled(arena, 1000, 3)
    assert arena._block.size == 0
    assert (held == 2).all()
    assert (outside == 3).all()
    del held, outside
    filled(arena, 1, 4)
    assert arena._block.size == 5056


@needs_reference_counts
def test_without_memory_for_the_block_arrays_lie_outside(monkeypatch):
    arena, empty = Arena(0), np.empty
    few = [filled(arena, 3000, 1), filled(arena, 3000, 1)]
    del few

    def no_more(size, dtype):
        if size > 4000:
            raise MemoryError
        return empty(size, dtype)

    monkeypatch.setattr("kernels.cpu.arena.np.empty", no_more)
    assert (filled(arena, 3000, 2) == 2).all()
    with pytest.raises(MemoryError):
        arena.empty((5000,), np.uint8)
    monkeypatch.undo()
    assert (filled(arena, 3000, 2) == 2).all()
    assert arena._block.size == 2 * 3008


@needs_reference_counts
def test_what_is_held_on_to_keeps_the_block_from_growing_but_nothing_from_working():
    arena = Arena(0)
    held = filled(arena, 100, 3)
    for _ in range(3):
        assert (filled(arena, 5000, 4) == 4).all()
    assert arena._block.size == 0
    assert (held == 3).all()


def test_several_threads_get_memory_of_their_own():
    arena, wrong = Arena(0), []

    def work(value):
        for size in range(1, 400):
            array = filled(arena, size * 10, value)
            if not (array == value).all():
                wrong.append(size)

    workers = [threading.Thread(target=work, args=(value,)) for value in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_device_uses_it_in_the_calling_thread_alone_and_while_it_is_open():
    device, arena = Cpu(2), Arena(0)

    def lies_in_it(array):
        while isinstance(array, np.ndarray):
            array = array.base
        return array is not None

    assert not lies_in_it(device.output((4,), np.float32))
    with device.reusing(arena):
        assert lies_in_it(device.output((4,), np.float32))
        with device.reusing(Arena(0)):
            pass
        assert lies_in_it(device.output((4,), np.float32))
        elsewhere = []
        other = threading.Thread(target=lambda: elsewhere.append(device.output((4,), np.float32)))
        other.start()
        other.join()
        assert not lies_in_it(elsewhere[0])
    with pytest.raises(ZeroDivisionError), device.reusing(arena):
        raise ZeroDivisionError
    assert not lies_in_it(device.output((4,), np.float32))
