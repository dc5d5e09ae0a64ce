"""The parts of ``tools.bench``: what is measured, on the CPU and on a GPU, and what is shown of it."""
