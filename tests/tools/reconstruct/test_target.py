from __future__ import annotations

import pytest

from tools.reconstruct.target import Target, even_weights


def target(kind: str, **weights: float) -> Target:
    return Target(kind, tuple(weights.items()))


def test_targets_are_compared_by_what_is_to_be_matched():
    one, again = (target("style", conv1_1=0.5, conv2_1=0.5) for _ in range(2))
    assert {one: "made"}[again] == "made"
    for other in (
        target("content", conv1_1=0.5, conv2_1=0.5),
        target("style", conv1_1=0.5, conv2_1=0.25),
        target("style", conv2_1=0.5, conv1_1=0.5),
    ):
        assert other != one


def test_weights_are_left_out_where_they_are_even():
    for kind, label, file in (
        ("content", "conv1_1+conv1_2", "content-conv1_1+conv1_2.png"),
        ("style", "conv1_1+conv1_2", "style-conv1_1+conv1_2.png"),
    ):
        even = Target(kind, tuple(even_weights(kind, ["conv1_1", "conv1_2"]).items()))
        assert (even.label, even.file) == (label, file)
    uneven = target("style", conv1_1=2, conv1_2=0.5)
    assert (uneven.label, uneven.file) == ("conv1_1:2+conv1_2:0.5", "style-conv1_1=2+conv1_2=0.5.png")


@pytest.mark.parametrize("layers", [["a/b", "c d"], ["long" * 20, "names" * 20]])
def test_a_file_has_a_name_that_any_file_system_takes(layers):
    names = {Target("content", ((layer, 1.0),)).file for layer in layers}
    names.add(Target("content", tuple((layer, 1.0) for layer in layers)).file)
    assert len(names) == 3
    for name in names:
        assert len(name) < 200
        assert not set(name) & set("/ ")
