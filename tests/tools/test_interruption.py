"""Ctrl-C while a tool's libraries are being loaded, and who else has the package loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HANDLER = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


@pytest.mark.parametrize(("package", "untouched"), [("other", "True"), ("tools.other", "False")])
def test_only_a_tool_of_the_project_takes_ctrl_c(package, untouched, tmp_path):
    """Each is run by ``python -m`` and imports the package while that looks for its main file."""
    if package.startswith("tools."):
        program = f"import sys; sys.argv[0] = '-m'; sys.orig_argv[:] = ['python', '-m', {package!r}]; import tools; "
        command = [sys.executable, "-c", program + HANDLER]
    else:
        folder = tmp_path / package
        folder.mkdir()
        (folder / "__init__.py").write_text("import tools.media.files\n")
        (folder / "__main__.py").write_text(HANDLER + "\n")
        command = [sys.executable, "-m", package]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr) == (untouched, "")
