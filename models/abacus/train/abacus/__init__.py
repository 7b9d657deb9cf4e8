"""Abacus: the generators, the training loop and the reference of the bundled reasoning model."""
