"""A GGUF file of random F16 weights in the shape of a Qwen3 config.json.

Usage: make_gguf.py SHAPE_FOLDER OUT.gguf
"""

import json
import pathlib
import sys

import gguf
import numpy as np


def write(shape: dict, path: str) -> None:
    hidden, inner, width = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    heads, kv_heads = shape["num_attention_heads"], shape["num_key_value_heads"]
    vocab = shape["vocab_size"]
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(float(shape["rope_theta"]))
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    # Nobody reads the text, but the format wants a vocabulary.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"t{i}".encode() for i in range(vocab)])
    writer.add_token_types([gguf.TokenType.NORMAL] * vocab)
    writer.add_token_merges(["t 1"])

    rng = np.random.default_rng(1)

    def matrix(name: str, rows: int, cols: int) -> None:
        values = rng.standard_normal((rows, cols), dtype=np.float32) * 0.02
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def norm(name: str, size: int) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(size, np.float32))

    matrix("token_embd", vocab, hidden)
    norm("output_norm", hidden)
    if not shape["tie_word_embeddings"]:
        matrix("output", vocab, hidden)
    for i in range(shape["num_hidden_layers"]):
        layer = f"blk.{i}."
        for name, size in (
            ("attn_norm", hidden),
            ("ffn_norm", hidden),
            ("attn_q_norm", width),
            ("attn_k_norm", width),
        ):
            norm(layer + name, size)
        for name, rows, cols in (
            ("attn_q", heads * width, hidden),
            ("attn_k", kv_heads * width, hidden),
            ("attn_v", kv_heads * width, hidden),
            ("attn_output", hidden, heads * width),
            ("ffn_gate", inner, hidden),
            ("ffn_up", inner, hidden),
            ("ffn_down", hidden, inner),
        ):
            matrix(layer + name, rows, cols)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    folder, out = sys.argv[1:]
    shape = json.loads((pathlib.Path(folder) / "config.json").read_text())
    if shape["model_type"] != "qwen3":
        raise SystemExit(f"{folder}: model_type: found {shape['model_type']}, wanted qwen3")
    write(shape, out)


if __name__ == "__main__":
    main()
