"""The examples in the docstrings run and give what they say, and every public name has one."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import engine
from engine import color, multiscale, reconstruct, terms
from engine.stylize import prepare

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_EXAMPLES = {"ModelError", "NonFiniteError", "Result"}
"""What is raised or returned, and made by nobody."""


def test_the_examples_give_what_they_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    messages, count = [], 0
    for module in pkgutil.walk_packages(engine.__path__, "engine."):
        for test in doctest.DocTestFinder().find(importlib.import_module(module.name)):
            count += doctest.DocTestRunner(verbose=False).run(test, out=messages.append).attempted
    assert messages == [], "".join(messages)
    assert count > 40


def test_every_public_name_has_an_example():
    names = set(engine.__all__) - WITHOUT_EXAMPLES
    public = [getattr(engine, name) for name in sorted(names)]
    public += [engine.Network.features, prepare, reconstruct.content_reconstruction, reconstruct.texture_synthesis]
    public += [multiscale.stylize_coarse_to_fine, color.match_colors]
    assert [one.__qualname__ for one in public if ">>>" not in one.__doc__] == []
    assert ">>>" in terms.__doc__
    assert len(public) >= 10
