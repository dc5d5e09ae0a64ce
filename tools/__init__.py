"""What a person runs: files, terminal, pictures, downloads (``python -m tools.NAME``)."""

import itertools
import os
import signal
import sys

# While ``python -m`` looks for the tool it is called "-m". A Ctrl-C before the tool can take it, as its libraries are
# being loaded, shall end the program without a traceback too; an exception could come up inside a library in C. Another
# program that imports this package keeps its own way to end.
if sys.argv[:1] == ["-m"] and any(
    option == "-m" and module.startswith("tools.") for option, module in itertools.pairwise(sys.orig_argv)
):
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
