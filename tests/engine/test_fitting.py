"""Which pieces fit into a memory, and what an optimizer keeps."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from engine.fitting import LEAST_HISTORY, fit, fitting_pieces, whole
from engine.load import load_network
from engine.objective import Objective
from engine.stylize import Settings, memory_beside
from tests.engine import models

SIZE = (288, 208)
SETTINGS = Settings(content_layers=("conv3_1",), style_layers=("conv1_1", "conv2_1", "conv3_2"))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return load_network(models.save(models.vgg(models.parameters((2, 2, 2), (16, 24, 32))), path), threads=1)


def test_what_fits_is_not_cut(network):
    needed = whole(network, *SIZE, SETTINGS).needed
    assert needed == network.memory(*SIZE, [*SETTINGS.content_layers, *SETTINGS.style_layers])
    found = fitting_pieces(network, *SIZE, SETTINGS, needed)
    assert (found.size, found.count, found.cost, found.keep) == (None, 1, 1.0, None)
    assert fitting_pieces(network, *SIZE, SETTINGS, needed - 1).count > 1


@pytest.mark.parametrize("edges", ["zero", "wrap"])
def test_layers_have_other_names(network, edges):
    """Each framework's own is understood, and what is no layer is named."""
    as_torch = replace(SETTINGS, content_layers="relu3_1", edges=edges)
    ours = replace(SETTINGS, content_layers="conv3_1", edges=edges)
    found, expected = (fitting_pieces(network, *SIZE, settings, 4e6) for settings in (as_torch, ours))
    assert (found.size, found.count, found.needed) == (expected.size, expected.count, expected.needed)
    with pytest.raises(ValueError, match="unknown layer 'conv9_9'"):
        fitting_pieces(network, *SIZE, replace(SETTINGS, content_layers="conv9_9"), 4e6)


def test_a_statistic_without_weight_needs_no_halo(network):
    """It takes no part in the loss."""
    plain, with_nothing = (
        replace(SETTINGS, style_statistics=statistics) for statistics in ({"gram": 1.0}, {"gram": 1.0, "shifted": 0.0})
    )
    assert fitting_pieces(network, *SIZE, with_nothing, 4e6) == fitting_pieces(network, *SIZE, plain, 4e6)


@pytest.mark.parametrize("edges", ["zero", "wrap"])
def test_less_memory_takes_more_time_and_is_kept_to(network, edges):
    settings = replace(SETTINGS, edges=edges)
    needed = whole(network, *SIZE, settings).needed
    found = [fitting_pieces(network, *SIZE, settings, needed * share) for share in (1.0, 0.9, 0.7, 0.5, 0.3)]
    costs = [pieces.cost for pieces in found]
    assert costs == sorted(costs)
    assert costs[-1] > 1.2
    for pieces, share in zip(found, (1.0, 0.9, 0.7, 0.5, 0.3), strict=True):
        assert pieces.needed <= needed * share


def test_where_nothing_fits_the_smallest_is_told(network):
    least = fitting_pieces(network, *SIZE, SETTINGS, 1.0)
    assert 1.0 < least.needed < fitting_pieces(network, *SIZE, SETTINGS, 0.4e9).needed
    assert fitting_pieces(network, *SIZE, SETTINGS, least.needed).needed == least.needed


def objective_in(pieces, network, image):
    names = {"content_layers": SETTINGS.content_layers, "style_layers": SETTINGS.style_layers}
    style = models.random_image(40, 40)
    return Objective(network, image, style, **names, piece=pieces.size, keep=pieces.keep, waist=pieces.waist)


@pytest.mark.parametrize("with_waist", [False, True])
def test_the_pieces_are_those_that_are_computed(network, with_waist):
    image, needed = models.random_image(*SIZE), whole(network, *SIZE, SETTINGS).needed
    found = fitting_pieces(network, *SIZE, SETTINGS, 0.5 * needed, with_waist=with_waist)
    assert (found.waist is not None) == with_waist
    pieces = objective_in(found, network, image).pieces(image.shape)
    assert len(pieces) == found.count > 1
    computed = sum(np.prod(piece.size) for piece in pieces) / np.prod(SIZE)
    # Of what lies behind a waist no position is computed twice.
    assert (1.0 if with_waist else computed) <= found.cost <= computed * 1.5


def test_a_waist_takes_less_time_in_the_same_memory(network):
    for share in (0.8, 0.5):
        room = share * whole(network, *SIZE, SETTINGS).needed
        without, free = (fitting_pieces(network, *SIZE, SETTINGS, room, with_waist=choice) for choice in (False, True))
        assert free.cost < without.cost


def peak_of(objective, image):
    """Return the bytes that an evaluation allocates at most."""
    objective(image)  # the threads' own memory is made at the first call
    tracemalloc.start()
    try:
        objective(image)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("share", [0.8, 0.5, 0.35])
def test_the_estimate_holds_with_a_waist(network, share):
    """As near to what is allocated as that of the whole is, and not below it."""
    size = (480, 560)
    image, needed = models.random_image(*size), whole(network, *size, SETTINGS).needed
    pieces = fitting_pieces(network, *size, SETTINGS, share * needed)
    assert pieces.waist is not None
    objective = objective_in(pieces, network, image)
    peak = peak_of(objective, image)
    assert 1 < pieces.needed / peak < 1.6


@pytest.mark.parametrize("edges", ["zero", "reflect"])
def test_what_sorts_a_layer_is_not_cut_and_its_memory_is_told(network, edges):
    size, settings = (480, 560), replace(SETTINGS, edges=edges, style_statistics="sliced")
    found = fitting_pieces(network, *size, settings, 1.0)
    assert (found.size, found.count) == (None if edges == "zero" else (None, None), 1)
    assert found.needed > whole(network, *size, replace(settings, style_statistics="gram")).needed
    image, style = models.random_image(*size), models.random_image(40, 40)
    names = {"content_layers": SETTINGS.content_layers, "style_layers": SETTINGS.style_layers}
    objective = Objective(network, image, style, **names, edges=edges, piece=found.size, style_statistics="sliced")
    peak = peak_of(objective, image)
    assert 1 < found.needed / peak < (1.6 if edges == "zero" else 2.5)


@pytest.mark.parametrize("edges", ["zero", "reflect", "wrap"])
def test_what_is_too_small_is_told_alike(network, edges):
    with pytest.raises(ValueError, match=r"an image of 2x2 pixels is too small for the network"):
        fitting_pieces(network, 2, 2, replace(SETTINGS, edges=edges), 1e9)


def test_without_style_layers_nothing_is_sorted(network):
    settings = replace(SETTINGS, style_layers=(), style_statistics="sliced")
    expected = whole(network, *SIZE, replace(settings, style_statistics="gram"))
    assert whole(network, *SIZE, settings) == expected


def test_fewer_corrections_are_kept_where_they_leave_too_little(network):
    free = memory_beside(network, *SIZE, replace(SETTINGS, history=10)) + whole(network, *SIZE, SETTINGS).needed
    pieces, settings, needed = fit(network, *SIZE, SETTINGS, free / 1.5)
    assert LEAST_HISTORY <= settings.history < 20
    assert needed <= free / 1.5
    assert pieces.count > 1


@pytest.mark.parametrize("edges", ["zero", "reflect", "wrap"])
def test_where_there_is_room_the_optimizer_keeps_its_own(network, edges):
    """Other edges have halos of their own, which no memory takes away."""
    pieces, settings, _ = fit(network, 32, 48, replace(SETTINGS, edges=edges), 1e12)
    assert settings.history is None
    assert pieces.count == 1


@pytest.mark.parametrize("changes", [{"history": 20}, {"optimizer": "adam"}])
def test_but_not_of_those_that_were_asked_for(network, changes):
    settings = replace(SETTINGS, **changes)
    for room in (1e12, 5e7, 1.0):
        assert fit(network, *SIZE, settings, room)[1] == settings
