"""The parts of ``tools.reconstruct``: what is to be matched, where the pictures are, and what is shown of them."""
