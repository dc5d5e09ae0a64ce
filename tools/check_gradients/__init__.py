"""The parts of ``python -m tools.check_gradients``: the study that it prints, and the page that it writes.

The checks themselves are in ``engine.gradcheck``. What is here asks what they are worth: the mistakes that they find,
the formulas in circulation that they tell apart, and what random directions can notice.
"""
