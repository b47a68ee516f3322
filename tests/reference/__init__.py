"""The reference in `docs/reference`, as far as it is made from the code."""
