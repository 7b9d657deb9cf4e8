"""Where the model's files lie in the project; every command takes another place as an option."""

from pathlib import Path

# models/abacus: config.json, weights, tokenizer.json, eval/
MODEL_DIR = Path(__file__).resolve().parents[2]
GOLDEN_DIR = MODEL_DIR.parents[1] / "tests" / "golden" / "abacus"
