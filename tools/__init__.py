"""What a person runs: files, terminal, pictures, downloads (``python -m tools.NAME``)."""

import os
import signal
import sys

# While ``python -m`` looks for the tool it is called "-m". A Ctrl-C before the tool can take it, as its libraries are
# being loaded, shall end the program without a traceback too; an exception could come up inside a library in C.
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
