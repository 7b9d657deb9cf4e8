"""Random models of the families that Troupe runs, with what transformers computes with them."""
