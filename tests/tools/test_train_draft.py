from __future__ import annotations

import numpy as np
import pytest

from engine.load import load_network
from engine.vgg import PAPER_CONTENT_WEIGHT
from tests.tools.calling import called
from tools import train_draft
from tools.images import save_image
from tools.samples import SAMPLES
from tools.train_draft import main
from tools.training.network import LAYERS
from tools.training.pictures import FREE_PICTURES

PICTURES = [SAMPLES[name](192, 256, 3).astype(np.float32) for name in ("swirls", "landscape")]


def test_the_file_is_a_small_model_of_the_papers_layers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_draft, "training_pictures", lambda _: PICTURES)
    for name in FREE_PICTURES:
        save_image((tmp_path / name).with_suffix(".png"), PICTURES[0])
        (tmp_path / name).with_suffix(".png").rename(tmp_path / name)
    output = tmp_path / "draft.onnx"
    assert main(["--pictures", str(tmp_path), "-o", str(output), "-q"]) == 0
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
        (("--pictures", "{}", "-o", "{}/draft.onnx", "--seed", "-1"), "-1"),
    ],
)
def test_wrong_input_is_answered_in_one_line(tmp_path, capsys, arguments, message):
    _, said = called(main, capsys, [argument.replace("{}", str(tmp_path)) for argument in arguments], 2)
    assert message in said
    assert said.count("\n") == 1
