from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from PIL import Image

import tools.judge_draft
from engine.load import load_network
from engine.onnx_writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from tools.judge_draft import TOLERANCE, Judges, Pair, Verdict, balanced, gap_closed, geometric_mean, main
from tools.random_vgg import random_vgg


def verdict(weight: float, content: float) -> Verdict:
    return Verdict(0.1, (0.1,) * 6, content, weight)


@pytest.mark.parametrize("first", [1e-9, 1e-5, 1.0])
@pytest.mark.parametrize("power", [-0.2, -0.7])
def test_the_content_weight_that_gives_a_distance_is_found(first, power):
    found = balanced(lambda weight: verdict(weight, 0.01 * weight**power / (1 + 1e-4 * weight**power)), 0.4, first, 12)
    assert abs(math.log(found.content / 0.4)) <= TOLERANCE


def test_where_no_weight_gives_the_distance_the_nearest_picture_counts():
    found = balanced(lambda weight: verdict(weight, min(0.2, 1e-3 * weight**-0.5)), 0.4, 1e-6)
    assert found.content == 0.2
    assert found.runs <= 6


def test_gaps_are_measured_in_logarithms():
    assert gap_closed([1.0], [0.1], [0.01]) == pytest.approx(0.5)
    assert gap_closed([1.0, 4.0], [1.0, 4.0], [0.1, 0.1]) == 0
    assert geometric_mean([1, 10, 100]) == pytest.approx(10)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two photographs, a painting, and small random networks in all three parts."""
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png", "painting.png"):
        Image.fromarray(random.integers(0, 256, (36, 48, 3), dtype=np.uint8)).save(tmp_path / name)
    for seed, name in enumerate(("judge.onnx", "draft.onnx")):
        nodes = random_vgg("vgg19", seed=seed, width=0.1)
        write_onnx(tmp_path / name, nodes, preprocessing_metadata(PREPROCESSING["caffe"]))
    monkeypatch.setattr(tools.judge_draft, "random_network", lambda *_: load_network(tmp_path / "draft.onnx"))
    return tmp_path


def test_the_painting_itself_is_at_no_distance_and_the_photograph_at_1(folder):
    network = load_network(folder / "judge.onnx")
    judges = Judges(network, network)
    photo, painting = (np.asarray(Image.open(folder / name), np.float32) for name in ("a.png", "painting.png"))
    pair = Pair(judges, photo, painting)
    assert pair.verdict(photo, 1.0).styles == pytest.approx((1.0,) * 6)
    assert pair.verdict(photo, 1.0).content == 0
    almost = pair.verdict(painting + 1e-3, 1.0)
    assert max(almost.styles) < 1e-3
    assert almost.content > 0


@pytest.fixture
def judged(folder, capsys):
    """Judges two pairs and returns what is printed."""
    arguments = [
        "--front", folder / "judge.onnx", "--slim", folder / "judge.onnx", "--pictures", folder,
        "-o", folder / "out", "--contents", "a.png,b.png", "--styles", "painting.png",
        "--size", 48, "--iterations", 2, "-q",
    ]  # fmt: skip

    def judged(*more, model="draft.onnx"):
        assert main([str(argument) for argument in [*arguments, "-m", folder / model, *more]]) == 0
        return capsys.readouterr().out

    return judged


def test_a_table_with_a_row_for_each_pair_which_an_interrupted_run_continues(folder, judged):
    table = judged()
    assert len(re.findall(r"^\| [ab] \| painting \|", table, re.MULTILINE)) == 2
    assert "**all** | 2 pairs" in table
    assert sorted(path.suffix for path in (folder / "out").iterdir()) == [".json"] * 2 + [".png"] * 6
    stored = json.loads((folder / "out" / "a-painting.json").read_text())
    assert list(stored) == ["random", "draft", "slim"]
    for path in (folder / "out").glob("*.png"):
        path.unlink()
    assert judged() == table
    assert not list((folder / "out").glob("*.png"))


def test_contestants_can_be_judged_one_after_the_other_and_another_draft_is_judged_anew(folder, judged):
    assert judged("--contestants", "random,slim") == ""
    assert not list((folder / "out").glob("*-draft.png"))
    table = judged("--contestants", "draft")
    assert "**all** | 2 pairs" in table
    assert judged() == table
    assert judged(model="judge.onnx") != table


def test_there_is_nothing_to_compare_with_before_the_random_network_is_judged(folder, judged):
    with pytest.raises(ValueError, match="no verdict on the random network, which draft is compared with"):
        judged("--contestants", "draft")
    with pytest.raises(ValueError, match="'drift'"):
        judged("--contestants", "drift")


def test_a_judge_without_the_layers_is_refused_at_once(folder):
    nodes = random_vgg("vgg19", width=0.1)
    cut = 1 + next(index for index, node in enumerate(nodes) if node.output == "conv3_1")
    write_onnx(folder / "front.onnx", nodes[:cut], preprocessing_metadata(PREPROCESSING["caffe"]))
    arguments = ["--front", folder / "front.onnx", "--slim", folder / "front.onnx", "-m", folder / "draft.onnx"]
    with pytest.raises(ValueError, match=r"front\.onnx has no conv4_1"):
        main([str(argument) for argument in [*arguments, "--pictures", folder, "-o", folder / "out"]])
