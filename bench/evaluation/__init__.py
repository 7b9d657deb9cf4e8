"""bench/eval: evaluation prompts through the served path."""
