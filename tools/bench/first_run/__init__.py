"""The first run on a GPU: every step in a process of its own, its results written as they come; see docs/gpu.md."""
