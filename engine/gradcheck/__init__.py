"""Verification of the gradients: checks, experiments, an audit of published formulas, and a study of faults."""
