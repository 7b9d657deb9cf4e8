"""Seeded generators of Abacus's training and evaluation text, one module a family.

Nothing in this package needs torch or numpy. A seed gives the same text on every machine.
"""
