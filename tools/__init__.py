"""What a person runs: files, terminal, pictures, downloads (``python -m tools.NAME``)."""
