"""Verification of the gradients: the checks, and experiments on steps, kinks, precision and a run."""
