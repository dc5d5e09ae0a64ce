from __future__ import annotations

from tools.reconstruct.sheet import sheet_columns
from tools.reconstruct.target import PAPER_LAYERS, Target


def targets(kind: str, *sets: tuple[str, ...]) -> list[Target]:
    return [Target(kind, tuple((layer, 1.0) for layer in layers)) for layers in sets]


def test_a_set_stands_below_its_deepest_layer():
    content = targets("content", ("conv3_1",), ("conv1_1",))
    style = targets("style", ("conv2_1", "conv1_1"), ("conv3_1",))
    columns = sheet_columns(content + style, PAPER_LAYERS)
    assert [label for label, _ in columns] == ["(a) conv1_1", "(b) conv2_1", "(c) conv3_1"]
    assert [places for _, places in columns] == [
        {"content": content[1]}, {"style": style[0]}, {"content": content[0], "style": style[1]},
    ]  # fmt: skip


def test_sets_with_the_same_deepest_layer_stand_in_the_order_asked_for():
    style = targets("style", ("conv2_1",), ("conv1_1", "conv2_1"), ("conv1_1",))
    content = targets("content", ("conv1_1",))
    columns = sheet_columns(content + style, PAPER_LAYERS)
    assert columns == [
        ("(a)", {"content": content[0], "style": style[0]}), ("(b)", {"style": style[1]}), ("(c)", {"style": style[2]}),
    ]  # fmt: skip
