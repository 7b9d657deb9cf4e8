"""A config as transformers 4 wrote it, and as most published folders have it."""

from generator.families import Settings

# Keys beside the model's own that published checkpoints of a family have.
PUBLISHED: dict[str, Settings] = {
    "deepseek_v2": {
        "scoring_func": "softmax",
        "moe_layer_freq": 1,
        "ep_size": 1,
        "seq_aux": True,
        "aux_loss_alpha": 0.001,
    },
    "deepseek_v3": {
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "moe_layer_freq": 1,
        "ep_size": 1,
    },
    "gpt_oss": {"swiglu_limit": 7.0},
}
# Keys that those did not have yet; they follow from others.
NOT_YET: dict[str, list[str]] = {
    "qwen2": ["layer_types"],
    "qwen3": ["layer_types"],
    "deepseek_v2": ["head_dim", "qk_head_dim"],
    "deepseek_v3": ["head_dim", "qk_head_dim", "rope_interleave"],
}


def scaling(rope: Settings) -> Settings | None:
    """rope_scaling from rope_parameters."""
    kind = rope["rope_type"]
    if kind == "default":
        return None
    rest = {k: v for k, v in rope.items() if k not in ("rope_theta", "rope_type")}
    rest.pop("partial_rotary_factor", None)
    # llama3 came after the key's change of name.
    return rest | {"rope_type" if kind == "llama3" else "type": kind}


def convert(config: Settings) -> Settings:
    family = config["model_type"]
    old = {k: v for k, v in config.items() if k not in ("dtype", "rope_parameters")}
    old |= {"torch_dtype": config["dtype"], "transformers_version": "4.51.0"}
    rope = config["rope_parameters"]
    if "full_attention" in rope:
        if family == "gemma3_text":
            old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    old |= {"rope_theta": rope["rope_theta"], "rope_scaling": scaling(rope)}
    if "partial_rotary_factor" in rope:
        old["partial_rotary_factor"] = rope["partial_rotary_factor"]
    if family == "minimax_m2":
        old["rotary_dim"] = int(old.pop("partial_rotary_factor") * config["head_dim"])
    if family == "qwen3_moe" and "num_local_experts" in old:
        old["num_experts"] = old.pop("num_local_experts")
    if family == "gemma3_text" and "_sliding_window_pattern" in old:
        old["sliding_window_pattern"] = old.pop("_sliding_window_pattern")
        del old["layer_types"]
    for key in NOT_YET.get(family, []):
        old.pop(key, None)
    return old | PUBLISHED.get(family, {})
