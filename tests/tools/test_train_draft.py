from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.network import load_network  # noqa: E402
from engine.vgg import PAPER_CONTENT_WEIGHT  # noqa: E402
from tests.tools.calling import called  # noqa: E402
from tools import train_draft  # noqa: E402
from tools.images import save_image  # noqa: E402
from tools.progress import Progress  # noqa: E402
from tools.train_draft import main  # noqa: E402
from tools.training.loop import _worse, train  # noqa: E402
from tools.training.network import LAYERS  # noqa: E402
from tools.training.pictures import FREE_PICTURES, clouds, dead_leaves  # noqa: E402
from tools.training.recipe import Recipe  # noqa: E402

PICTURES = [clouds(128, np.random.default_rng(0)), dead_leaves(128, np.random.default_rng(1))]


def trained(**changes):
    recipe = Recipe(**({"steps": 6, "batch": 16, "quiet_part": 0.0, "ramp": 0.1} | changes))
    with Progress(recipe.steps, "steps", "test", quiet=True) as progress:
        return train(PICTURES, recipe, progress).state_dict()


def test_the_same_seed_trains_the_same_network():
    first, again, other = trained(), trained(), trained(seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_adversary_makes_the_loss_greater():
    loss = lambda crops: (crops**3).sum()  # noqa: E731
    crops = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    change = torch.zeros_like(crops)
    changed = (crops + change).requires_grad_()
    loss(changed).backward()
    change = _worse(change, changed.grad, 0.5)
    assert change.square().mean().sqrt() == pytest.approx(0.5)
    assert loss(crops + change) > loss(crops) + 1


def test_a_trained_file_is_a_small_model_of_the_papers_layers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_draft, "training_pictures", lambda *_: PICTURES)
    for name in FREE_PICTURES:
        save_image((tmp_path / name).with_suffix(".png"), PICTURES[0])
        (tmp_path / name).with_suffix(".png").rename(tmp_path / name)
    output = tmp_path / "draft.onnx"
    assert main(["--pictures", str(tmp_path), "-o", str(output), "--steps", "2", "-q"]) == 0
    network = load_network(output)
    assert network.layers == LAYERS
    assert network.content_weight == PAPER_CONTENT_WEIGHT
    assert output.stat().st_size < 3_000_000
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--pictures"),
        (("--pictures", "{}", "-o", "{}/draft.onnx"), FREE_PICTURES[0]),
        (("--pictures", "{}", "-o", "{}/missing/draft.onnx"), "does not exist"),
        (("--pictures", "{}", "-o", "{}/draft.onnx", "--steps", "0"), "'0' is not at least 1"),
    ],
)
def test_wrong_input_is_answered_in_one_line(tmp_path, capsys, arguments, message):
    _, said = called(main, capsys, [argument.replace("{}", str(tmp_path)) for argument in arguments], 2)
    assert message in said
    assert said.count("\n") == 1
