"""The parts of ``tools.sweep``: axes and cells, the workers that make them, and what is shown of them."""
