from __future__ import annotations

import json
import math

import numpy as np
import pytest

from engine.load import load_network
from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from tests.tools.calling import called
from tools.draft.__main__ import main
from tools.draft.judge import Verdict, _next_weight, judge_all, matched, pair_of, rendered, table
from tools.media.images import load_image
from tools.media.saving import save_image
from tools.models.random_vgg import random_vgg


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    (folder / "pictures").mkdir()
    random = np.random.default_rng(0)
    for name, side in (("photo", 4), ("other", 8), ("painting", 2)):
        blocks = np.kron(random.uniform(0, 255, (32 // side, 32 // side, 3)), np.ones((side, side, 1)))
        save_image(folder / "pictures" / f"{name}.png", blocks, None, {})
    for name, seed, width in (("teacher", 0, 1 / 8), ("small", 1, 1 / 16), ("tiny", 2, 1 / 32)):
        metadata = preprocessing_metadata(PREPROCESSING["caffe"])
        write_onnx(folder / f"{name}.onnx", random_vgg("vgg19", seed, width), metadata)
    return folder


@pytest.fixture(scope="module")
def networks(folder):
    return {name: load_network(folder / f"{name}.onnx", threads=1) for name in ("teacher", "small", "tiny")}


@pytest.fixture(scope="module")
def pair(folder, networks):
    photograph, painting = (load_image(folder / "pictures" / f"{name}.png").pixels for name in ("photo", "painting"))
    return pair_of(networks["teacher"], "photo, painting", photograph, painting)


def test_the_photograph_is_at_no_distance_in_content_and_at_one_in_style(pair):
    verdict = rendered(pair.objective.network, pair, 1e30, 1)
    assert verdict.content == pytest.approx(0, abs=1e-4)
    assert verdict.style == pytest.approx(1, rel=0.05)


def test_the_content_distance_is_the_relative_squared_error(pair, networks):
    verdict = rendered(networks["small"], pair, 1e-3, 10)
    assert verdict.content > 0
    assert 0 < verdict.style < 1
    assert verdict.style == pytest.approx(math.prod(verdict.layers.values()) ** 0.2)


def test_the_content_weight_is_found_that_ends_as_far_from_the_content(pair, networks):
    wanted = rendered(networks["small"], pair, 1e2, 15).content
    found = matched(networks["small"], pair, wanted, 1e4, 15)
    assert abs(found.content / wanted - 1) < abs(rendered(networks["small"], pair, 1e4, 15).content / wanted - 1)


def test_the_next_weight_lies_on_the_line_through_two_in_logarithms():
    tried = [Verdict(0.5, {}, 1e-3), Verdict(0.4, {}, 2e-3)]
    slope = math.log(0.4 / 0.5) / math.log(2)
    assert _next_weight(tried, 0.45) == pytest.approx(1e-3 * math.exp(math.log(0.45 / 0.5) / slope))
    assert _next_weight(tried[:1], 0.6) < 1e-3  # farther from the content: less weight


def test_what_is_recorded_is_not_made_again(folder, networks, tmp_path, monkeypatch):
    record = tmp_path / "verdicts.jsonl"
    given = {"small": (networks["small"], 1e-3), "tiny": (networks["tiny"], 1e-3)}
    arguments = (networks["teacher"], given, folder / "pictures", [("photo", "painting")], 32, 5, record)
    made = judge_all(*arguments)
    assert [json.loads(line)["network"] for line in record.read_text("utf-8").splitlines()] == ["small", "tiny"]
    monkeypatch.setattr("tools.draft.judge.rendered", None)
    assert judge_all(*arguments) == made


def test_verdicts_on_other_networks_or_settings_are_not_taken_for_these(folder, networks, tmp_path):
    record = tmp_path / "verdicts.jsonl"
    given = {"small": (networks["small"], 1e-3)}
    arguments = (networks["teacher"], given, folder / "pictures", [("photo", "painting")])
    judge_all(*arguments, 32, 2, record, hashes={"small": "a hash"})
    for size, iterations, one in ((40, 2, "a hash"), (32, 3, "a hash"), (32, 2, "another")):
        with pytest.raises(ValueError, match="has verdicts on other networks or settings: give another --record"):
            judge_all(*arguments, size, iterations, record, hashes={"small": one})
    with pytest.raises(ValueError, match="other networks or settings"):
        judge_all(*arguments[:1], {"small": (networks["small"], 1e-2)}, *arguments[2:], 32, 2, record)
    for line in ('{"event": "start"}', record.read_text("utf-8")[:40]):
        with record.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        with pytest.raises(ValueError, match=r"verdicts.jsonl', line 2, is no verdict: remove it"):
            judge_all(*arguments, 32, 2, record, hashes={"small": "a hash"})


def test_the_table_has_geometric_means_and_marks_what_was_not_learnt_from():
    def of(style):
        return Verdict(0.5, {"conv1_1": style, "conv2_1": style}, 1e-3)

    verdicts = {"a, p": {"one": of(0.1), "two": of(0.2)}, "b, p": {"one": of(0.4), "two": of(0.2)}}
    lines = table(verdicts, ["b", "p"])
    assert lines[2] == "| a, p * | 0.500 / 0.500 | 0.1000 | 0.2000 |"
    assert lines[-2:] == [
        "| **all** | 2 pairs | 0.2000 | 0.2000 |",
        "| **learnt from neither** | 1 pairs | 0.4000 | 0.2000 |",
    ]


def test_the_command_judges(folder, capsys):
    names = ("--photographs", "photo", "--paintings", "painting", "--unseen", "painting")
    networks = [folder / "small.onnx", folder / "tiny.onnx"]
    options = ("--pictures", folder / "pictures", *names, "--size", 32, "--iterations", 3, "--content-weight", 1e-3)
    given = ["judge", *networks, *options, "--teacher", folder / "teacher.onnx"]
    output, said = called(main, capsys, given, 0)
    assert output.splitlines()[0] == "| pair | content distance: small / tiny | small | tiny |"
    assert output.splitlines()[2].startswith("| photo, painting * | ")
    assert "photo, painting: tiny, content" in said
    given[given.index("painting")] = "paintng"
    assert "no picture called 'paintng'" in called(main, capsys, given, 2)[1]


def test_the_command_learns_and_the_file_loads(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tools.draft.__main__.SIDES", (32,))
    monkeypatch.setattr("tools.draft.__main__.CROP", 32)
    monkeypatch.setattr("tools.draft.__main__.PRACTICE_SIDE", 32)
    monkeypatch.setattr("tools.draft.practice.ITERATIONS", 3)
    given = ["learn", folder / "pictures", folder / "pictures", "--crops", 34, "--practice", 2, "--teacher"]
    few = [folder / "teacher.onnx", "-o", tmp_path / "out.onnx", "--steps", "0.01"]
    output, _ = called(main, capsys, given + few, 0)
    assert "practice picture 2 of 2" in output
    network = load_network(tmp_path / "out.onnx")
    assert network.layers[-1] == "conv5_1"
    assert network.features(np.zeros((32, 32, 3)), "conv2_1")["conv2_1"].shape == (16, 16, 16)
    first = (tmp_path / "out.onnx").read_bytes()
    called(main, capsys, [*given, *few, "--threads", 2], 0)
    assert (tmp_path / "out.onnx").read_bytes() == first
