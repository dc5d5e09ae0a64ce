"""The first run on a GPU: each step finds what it is to find, emulated, and nothing that goes wrong ends the rest."""

import json
import sys
import textwrap
import time
import types
from pathlib import Path

import pytest

from tests.kernels.cuda.emulator import Emulator
from tools.bench import __main__ as bench
from tools.bench import cuda
from tools.bench.first_run import page, running, steps
from tools.bench.first_run.first_run import first_run
from tools.bench.first_run.running import outcome_file, perform, read, run_step
from tools.bench.first_run.steps import STEPS, Bench, Plan
from tools.models.subject import Setup

ROOT = Path(__file__).resolve().parents[3]
WAYS = ("float32", "float16")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    for name, value in {"LAUNCHES": 1, "ITERATIONS": 1, "COPIED": 1000}.items():
        monkeypatch.setattr(cuda, name, value)
    return Plan(Setup(width=0.05, threads=1), (16, 20), 1, 2, tmp_path, tmp_path / "no models")


def outcome(plan, name, items):
    """Do some items of a step in this process; return what became of them."""
    for item in items:
        assert item in STEPS[name].items(Bench(plan))
    return {item: running._outcome(Bench(plan), name, item) for item in items}


def only_row(entry):
    assert entry["state"] == "done", entry
    (row,) = entry["rows"]
    return row


def test_the_card_is_described(emulator, plan):
    (entry,) = outcome(plan, "device", ["facts"]).values()
    facts = {row["fact"]: row["is"] for row in entry["rows"]}
    assert facts["name"] == "emulated GPU"
    assert facts["compute capability"] == "9.0"
    assert float(facts["copy, TB/s read and written"]) >= 0


def test_every_source_is_compiled_for_every_type(emulator, plan):
    names = STEPS["compile"].items(Bench(plan))
    assert "relu.cu, REAL float16" in names
    assert {name.partition(",")[0] for name in names} == set(steps.source.sources())
    row = only_row(outcome(plan, "compile", ["relu.cu, REAL float32"])["relu.cu, REAL float32"])
    assert row["kernels"] == 4
    emulator.capability = (8, 0)
    assert outcome(plan, "compile", ["hopper.cu"])["hopper.cu"]["state"] == "left out"


def test_every_kernel_has_its_own_distance_and_a_wrong_one_is_named(emulator, plan):
    names = STEPS["kernels"].items(Bench(plan))
    assert {"conv", "gram, float16", "implicit_gemm_conv, float32, 5x7, 24 to 40"} < set(names)
    emulator.faults["relu"] = lambda results: results[0].values.__imul__(1.5)
    found = outcome(plan, "kernels", ["relu", "affine"])
    assert found["relu"]["state"] == "wrong"
    assert found["relu"]["rows"][0]["distance"] > 0.1
    assert only_row(found["affine"])["distance"] < 1e-6
    assert len(STEPS["hopper"].items(Bench(plan))) == 10
    emulator.capability = (8, 0)
    assert STEPS["hopper"].items(Bench(plan)) == []


def test_the_objective_is_compared_and_timed_by_ways_of_computing(emulator, plan):
    for way, entry in outcome(plan, "objective", WAYS).items():
        assert only_row(entry)["gradient"] < (1e-4 if way == "float32" else 2e-2)
    row = only_row(outcome(plan, "evaluation", ["float16"])["float16"])
    assert row["ms"] >= row["to launch, ms"] > 0
    assert row["launches"] > 50
    assert only_row(outcome(plan, "larger", ["float16, 20"])["float16, 20"])["ms"] > 0
    assert STEPS["larger"].items(Bench(plan)) == [f"{way}, 20" for way in steps.PLAIN]


def test_what_is_replayed_optimized_and_timed_by_layer(emulator, plan):
    way = "float16, replayed"
    assert only_row(outcome(plan, "replay", [way])[way])["ms"] > 0
    assert only_row(outcome(plan, "l-bfgs", [way])[way])["iteration, ms"] > 0
    assert only_row(outcome(plan, "iterations", [way])[way])["iterations"] == 2
    rows = outcome(plan, "layers", ["float16"])["float16"]["rows"]
    assert len(rows) == 13
    assert all(row["ms"] > 0 and row["back ms"] > 0 for row in rows)


def test_what_is_not_there_is_left_out_with_the_reason(emulator, plan, monkeypatch):
    monkeypatch.setattr(steps.shutil, "which", lambda *_, **__: None)
    assert outcome(plan, "sanitizer", ["memcheck"])["memcheck"]["reason"] == "compute-sanitizer is not on the PATH"
    assert "fetch vgg19" in outcome(plan, "picture", ["float16"])["float16"]["reason"]
    monkeypatch.setitem(sys.modules, "torch", None)
    assert outcome(plan, "torch", ["matrix product"])["matrix product"]["reason"] == "PyTorch is not installed"


def test_a_picture_is_made_where_there_is_a_model(emulator, plan, monkeypatch):
    made = []
    done = types.SimpleNamespace(returncode=0)
    monkeypatch.setattr(steps.subprocess, "run", lambda command: made.append(command) or done)
    monkeypatch.chdir(ROOT)
    model = str(ROOT / "tools/models/draft.onnx")
    given = Plan(Setup(model=model), (16,), 1, 1, plan.folder)
    assert only_row(outcome(given, "picture", ["tf32"])["tf32"])["file"] == "picture-tf32.png"
    (options,) = made
    assert options[1:3] == ["-m", "tools.stylize"]
    assert options[options.index("-m", 3) + 1] == model
    assert options[options.index("--dtype") + 1] == "tf32"


def test_an_item_that_fails_ends_its_process_and_the_next_goes_on_behind_it(emulator, plan, monkeypatch):
    def refuses(bench, item):
        if item == "b":
            raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")
        return {"ms": 1.0}

    monkeypatch.setitem(running.STEPS, "device", steps.Step("x", lambda bench: ["a", "b", "c"], refuses))
    assert perform(plan, "device") == running.FAILED
    assert perform(plan, "device") == 0
    found = [entry for entry in read(outcome_file(plan.folder, "device")) if entry["state"] != "begun"]
    assert [(entry["item"], entry["state"]) for entry in found] == [("a", "done"), ("b", "failed"), ("c", "done")]
    assert found[1]["reason"] == "RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS"


# ---- processes ----

PROGRAM = """
    import json, os, signal, subprocess, sys
    path = sys.argv[1]
    lines = open(path).read().splitlines() if os.path.exists(path) else []
    done = {json.loads(line)["item"] for line in lines}
    def tell(item, state):
        with open(path, "a") as file:
            file.write(json.dumps({"item": item, "state": state, "rows": [{"ms": 1.0}], "seconds": 1.0}) + "\\n")
    for item in sys.argv[2:]:
        if item not in done:
            tell(item, "begun")
            if item == "hangs":
                program = "import time, sys; time.sleep(4); open(sys.argv[1], 'w')"
                subprocess.run([sys.executable, "-c", program, path + "2"])
            if item == "crashes":
                os.kill(os.getpid(), signal.SIGSEGV)
            if item == "leaves":
                sys.exit(5)
            tell(item, "done")
"""


def processes(folder, *items, limit=2.0, seconds=60.0):
    program = folder / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, str(program), str(outcome_file(folder, "torch")), *items]
    return run_step(folder, "torch", command, time.monotonic() + seconds, limit, time.monotonic)


def test_what_hangs_or_crashes_costs_itself_alone(tmp_path):
    began = time.monotonic()
    found = processes(tmp_path, "one", "hangs", "two", "crashes", "three", "leaves", "four", limit=1.0)
    assert [(entry["item"], entry["state"]) for entry in found] == [
        ("one", "done"),
        ("hangs", "failed"),
        ("two", "done"),
        ("crashes", "failed"),
        ("three", "done"),
        ("leaves", "failed"),
        ("four", "done"),
    ]
    reasons = [entry["reason"] for entry in found if entry["state"] == "failed"]
    assert reasons == [
        "it took more than 1 s",
        "its process was ended by SIGSEGV",
        "its process ended with exit code 5",
    ]
    time.sleep(max(0.0, began + 6 - time.monotonic()))
    assert not (tmp_path / "torch.jsonl2").exists(), "what a process has started ends with it"


def test_a_process_that_begins_nothing_is_not_started_again(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no driver')"]
    (entry,) = run_step(tmp_path, "torch", command, time.monotonic() + 60, 5.0, time.monotonic)
    assert (entry["state"], entry["reason"]) == ("failed", "its process ended with exit code 1: no driver")


def test_after_the_whole_runs_time_nothing_is_begun(tmp_path):
    (entry,) = processes(tmp_path, "one", seconds=-1)
    assert (entry["state"], entry["reason"]) == ("left out", "the time for the whole run is over")


def test_a_run_with_an_emulated_gpu(compiled_kernels, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert Emulator(compiled_kernels)
    folder, done = tmp_path / "run", []
    small = ["--device", "cuda", "--first-run", str(folder), "--size", "16", "--width", "0.05", "--repeats", "1"]
    program = [sys.executable, "-m", "tests.tools.bench.emulated", str(compiled_kernels)]
    found = first_run(folder, small, done.append, program=program, steps=["torch", "torch-larger"])
    assert done == ["torch", "torch-larger"]
    assert found["torch-larger"] == []  # there is one size
    assert {entry["state"] for entry in found["torch"]} == {"left out"}
    numbers = json.loads((folder / "first_run.json").read_text())
    assert numbers["steps"] == found
    assert "## PyTorch\n\n9 left out, " in (folder / "first_run.md").read_text()


def test_without_a_gpu_one_sentence_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    program = [sys.executable, "-c", "import sys; sys.exit('bench: CuPy finds no GPU')"]
    with pytest.raises(
        ValueError, match=r"^device 'cuda' is not available: its process .* 1: bench: CuPy finds no GPU"
    ):
        first_run(tmp_path / "run", [], program=program)
    assert "CuPy finds no GPU" in (tmp_path / "run" / "first_run.md").read_text()


# ---- the command, and what is shown ----


def test_a_folder_with_something_in_it_and_the_cpu_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--first-run is for a GPU: give --device cuda too"):
        bench.main(["--first-run", str(tmp_path)])
    (tmp_path / "old").touch()
    with pytest.raises(ValueError, match="is not empty: give --first-run a new one"):
        bench.main(["--device", "cuda", "--first-run", str(tmp_path), "--quiet"])


def entries(count, **row):
    return [
        {"item": f"item {i}", "state": "done", "seconds": 0.5, "rows": [{**row, "ms": float(i)}]} for i in range(count)
    ]


def test_the_table_has_at_most_100_lines_what_failed_first(tmp_path):
    found = {name: entries(50) for name in STEPS}
    found["kernels"].append({"item": "conv", "state": "wrong", "seconds": 1.0, "rows": [{"distance": 0.5}]})
    found["kernels"].append({"item": "gram", "state": "failed", "reason": "it took more than 30 s"})
    lines = page.printed(tmp_path, found).splitlines()
    assert len(lines) <= 100
    assert lines[-1] == f"all of it: {tmp_path / 'first_run.md'}"
    first = lines.index("Kernels, by relative distance: 50 done, 1 wrong, 1 failed, 26 s") + 2
    assert "conv" in lines[first]
    assert "gram" in lines[first + 1]
    assert lines[first + 1].endswith("failed: it took more than 30 s")


def test_the_largest_distances_are_shown_first_and_the_page_has_all(tmp_path):
    rows = [
        {"item": f"k{i}", "state": "done", "rows": [{"distance": i / 1e9}], "warnings": ["slow"]} for i in range(40)
    ]
    shown = page.printed(tmp_path, {"kernels": rows}).splitlines()
    assert [line.split()[0] for line in shown[2:-1]] == ["k39", "k38", "k37", "k36"]
    page.write(tmp_path, "2026-01-02", {"kernels": rows})
    text = (tmp_path / "first_run.md").read_text()
    assert all(f"| k{i} |" in text for i in range(40))
    assert text.count("- warning: slow") == 1
