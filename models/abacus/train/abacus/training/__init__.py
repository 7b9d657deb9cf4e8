"""Training: the model over whole sequences, packed rows of generated text, Muon and AdamW."""
