"""The parts of ``tools.stylize``: what a run tells of itself, and how long it takes."""
