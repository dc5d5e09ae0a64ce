"""The parts of ``tools.studio``: orders, the run that can be steered, the queue, the folder, the page."""
