"""The parts of ``tools.models``, and what other tools load: networks by name, from any weight file, or at random."""
