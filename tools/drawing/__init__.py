"""Pictures made of arithmetic: what ``python -m tools.samples`` draws, and what it draws with."""
