"""What a person runs: files, terminal, pictures, downloads (``python -m tools.NAME``)."""

import itertools
import sys

from tools.cli import starting

# While ``python -m`` looks for the tool it is called "-m". Another program that imports this package keeps its own way
# to end.
if sys.argv[:1] == ["-m"]:
    for _option, _module in itertools.pairwise(sys.orig_argv):
        if _option == "-m" and _module.partition(".")[0] == "tools":
            starting.begin(_module.removeprefix("tools.").partition(".")[0])
            break
