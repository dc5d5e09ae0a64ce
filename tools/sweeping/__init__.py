"""The parts of ``tools.sweep``: grid and cells, the workers that make them, and what is shown of them."""
