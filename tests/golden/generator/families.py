"""Random sizes and settings for each family: a config of transformers 5 and how it is quantised."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Settings = dict[str, Any]


@dataclasses.dataclass
class Shape:
    """What a seed chose, before transformers sees it."""

    model_type: str
    settings: Settings
    quantisation: Settings | None = None
    mtp: bool = False  # a multi-token prediction module lies behind the last layer


class Dice:
    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def pick(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def size(self, low: int, high: int, step: int) -> int:
        return step * int(self.rng.integers(-(-low // step), high // step + 1))

    def chance(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)


def yarn(dice: Dice, theta: float, **more: Any) -> Settings:
    return {
        "rope_type": "yarn",
        "rope_theta": theta,
        "factor": float(dice.pick(4, 8, 16, 40)),
        "original_max_position_embeddings": dice.pick(32, 64, 256),
        "beta_fast": dice.pick(32, 16),
        "beta_slow": 1,
        **more,
    }


def plain_rope(theta: float, **more: Any) -> Settings:
    return {"rope_type": "default", "rope_theta": theta, **more}


def theta_of(dice: Dice) -> float:
    return float(dice.pick(10000, 50000, 500000, 1000000))


def common(dice: Dice, step: int = 8) -> Settings:
    """What all families have. `step` divides what quantised formats group."""
    return {
        "vocab_size": dice.size(200, 450, 1),
        "hidden_size": dice.size(max(40, step), max(160, 2 * step), step),
        "intermediate_size": dice.size(max(48, step), max(200, 2 * step), step),
        "num_hidden_layers": dice.size(2, 5, 1),
        "max_position_embeddings": dice.pick(1024, 4096, 32768),
        "rms_norm_eps": dice.pick(1e-5, 1e-6),
        "tie_word_embeddings": dice.chance(0.3),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "rope_parameters": plain_rope(theta_of(dice)),
    }


def widen(settings: Settings, multiple: int) -> None:
    """Some configs want a hidden_size that is a multiple of the number of heads."""
    settings["hidden_size"] = -(-settings["hidden_size"] // multiple) * multiple


def heads(dice: Dice, settings: Settings, step: int = 8) -> Settings:
    """Grouped-query heads with a size of their own; what they are wide together is a multiple of
    `step`."""
    odd = step <= 8
    kv_heads = dice.pick(1, 2, 3, 4) if odd else dice.pick(1, 2, 4)
    count = kv_heads * (dice.pick(1, 2, 3, 4, 5) if odd else dice.pick(1, 2, 4))
    head_dim = dice.pick(16, 32, 48, 64, 80, 96, 128)
    while kv_heads * head_dim % step:
        head_dim *= 2
    widen(settings, math.lcm(count, step))
    return {"num_key_value_heads": kv_heads, "num_attention_heads": count, "head_dim": head_dim}


def square_heads(dice: Dice, settings: Settings) -> Settings:
    """Heads that share hidden_size among them, for families without a head_dim of their own."""
    heads, kv_heads = dice.pick((4, 2), (6, 2), (8, 8), (8, 1), (6, 3))
    settings["hidden_size"] = heads * dice.pick(16, 32, 64)
    return {"num_attention_heads": heads, "num_key_value_heads": kv_heads}


def experts(dice: Dice) -> tuple[int, int]:
    """(experts, of them for a token)"""
    count = dice.pick(4, 6, 8, 12, 16)
    return count, int(dice.rng.integers(1, min(count, 6) + 1))


def layer_types(dice: Dice, layers: int, pattern: int) -> list[str]:
    """Every `pattern`-th layer is global."""
    return ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(layers)]


# --- Dense families ------------------------------------------------------------------------------


def llama(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= heads(dice, s, step)
    s |= {"attention_bias": False, "mlp_bias": False}
    theta = theta_of(dice)
    s["rope_parameters"] = dice.pick(
        plain_rope(theta),
        {"rope_type": "linear", "rope_theta": theta, "factor": 4.0},
        {
            "rope_type": "llama3",
            "rope_theta": theta,
            "factor": dice.pick(8.0, 32.0),
            "low_freq_factor": 1.0,
            "high_freq_factor": dice.pick(2.0, 4.0),
            "original_max_position_embeddings": dice.pick(32, 128),
        },
    )
    return Shape("llama", s)


def qwen2(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= square_heads(dice, s)
    if dice.chance():
        s |= {
            "use_sliding_window": True,
            "sliding_window": dice.size(16, 60, 1),
            "max_window_layers": 1,
        }
    return Shape("qwen2", s)


def qwen3(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= heads(dice, s, step)
    s["attention_bias"] = False
    if dice.chance(0.3):
        s["rope_parameters"] = yarn(dice, theta_of(dice))
    return Shape("qwen3", s)


def smollm3(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= square_heads(dice, s)
    layers = s["num_hidden_layers"]
    interval = dice.pick(2, 3, 4)
    s |= {
        "no_rope_layer_interval": interval,
        "no_rope_layers": [int((i + 1) % interval != 0) for i in range(layers)],
        "use_sliding_window": False,
    }
    return Shape("smollm3", s)


def olmo3(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= square_heads(dice, s)
    theta = theta_of(dice)
    scaled = yarn(dice, theta)
    scaled["attention_factor"] = 0.1 * float(np.log(scaled["factor"])) + 1.0
    s |= {
        "sliding_window": dice.size(16, 60, 1),
        "layer_types": layer_types(dice, s["num_hidden_layers"], dice.pick(2, 3, 4)),
        "rope_parameters": {
            "sliding_attention": plain_rope(theta),
            "full_attention": dice.pick(plain_rope(theta), scaled),
        },
    }
    return Shape("olmo3", s)


def gemma3_text(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= heads(dice, s, step)
    pattern = dice.pick(2, 3)
    theta = theta_of(dice)
    s |= {
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": dice.pick(s["head_dim"], 24, 100),
        "sliding_window": dice.size(16, 60, 1),
        "_sliding_window_pattern": pattern,
        "layer_types": layer_types(dice, s["num_hidden_layers"], pattern),
        "rope_parameters": {
            "sliding_attention": plain_rope(10000.0),
            "full_attention": dice.pick(
                plain_rope(theta), {"rope_type": "linear", "rope_theta": theta, "factor": 8.0}
            ),
        },
    }
    return Shape("gemma3_text", s)


# --- Mixtures of experts -------------------------------------------------------------------------


def qwen3_moe(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= heads(dice, s, step)
    count, chosen = experts(dice)
    layers = s["num_hidden_layers"]
    s |= {
        "attention_bias": False,
        "num_experts": count,
        "num_experts_per_tok": chosen,
        "moe_intermediate_size": dice.size(max(24, step), max(96, step), step),
        "norm_topk_prob": dice.chance(0.7),
        "mlp_only_layers": dice.pick([], [0], [layers - 1]),
        "decoder_sparse_step": dice.pick(1, 1, 2),
    }
    return Shape("qwen3_moe", s)


def mixtral(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= square_heads(dice, s)
    count, chosen = experts(dice)
    s |= {
        "num_local_experts": count,
        "num_experts_per_tok": chosen,
        "sliding_window": dice.pick(None, dice.size(16, 60, 1)),
    }
    return Shape("mixtral", s)


def minimax_m2(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= heads(dice, s, step)
    count, chosen = experts(dice)
    s |= {
        "intermediate_size": dice.size(max(24, step), max(96, step), step),
        "num_local_experts": count,
        "num_experts_per_tok": chosen,
        "rope_parameters": plain_rope(
            theta_of(dice), partial_rotary_factor=dice.pick(0.25, 0.5, 1.0)
        ),
    }
    return Shape("minimax_m2", s)


def glm4_moe(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= heads(dice, s, step)
    groups, each, groups_chosen = dice.pick((1, 8, 1), (1, 12, 1), (2, 4, 1), (4, 3, 2))
    rotary = dice.pick(0.25, 0.5, 1.0)
    s |= {
        "attention_bias": dice.chance(0.7),
        "use_qk_norm": dice.chance(),
        "partial_rotary_factor": rotary,
        "rope_parameters": plain_rope(theta_of(dice), partial_rotary_factor=rotary),
        "first_k_dense_replace": dice.pick(0, 1),
        "moe_intermediate_size": dice.size(max(24, step), max(96, step), step),
        "n_routed_experts": groups * each,
        "n_shared_experts": dice.pick(1, 2),
        "num_experts_per_tok": int(dice.rng.integers(1, groups_chosen * each // 2 + 2)),
        "n_group": groups,
        "topk_group": groups_chosen,
        "norm_topk_prob": dice.chance(0.7),
        "routed_scaling_factor": dice.pick(1.0, 2.5),
    }
    return Shape("glm4_moe", s, mtp=dice.chance())


def gpt_oss(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= heads(dice, s, step)
    count, chosen = experts(dice)
    s |= {
        "tie_word_embeddings": False,
        "intermediate_size": dice.size(max(24, step), max(96, step), step),
        "num_local_experts": count,
        "num_experts_per_tok": chosen,
        "sliding_window": dice.size(16, 60, 1),
        "layer_types": layer_types(dice, s["num_hidden_layers"], 2),
        "rope_parameters": yarn(dice, 150000.0, truncate=False),
    }
    return Shape("gpt_oss", s)


def mla(dice: Dice, settings: Settings, step: int) -> Settings:
    heads = dice.pick(2, 3, 4, 6, 8)
    widen(settings, math.lcm(heads, step))
    nope, rope = dice.pick(16, 32, 48, 64), dice.pick(8, 16, 32, 64)
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "kv_lora_rank": dice.size(max(24, step), max(96, step), step),
        "q_lora_rank": dice.pick(None, dice.size(max(24, step), max(96, step), step)),
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "head_dim": rope,
        "v_head_dim": dice.pick(16, 32, 48, 64),
        "attention_bias": False,
        "first_k_dense_replace": dice.pick(0, 1),
        "moe_intermediate_size": dice.size(max(24, step), max(96, step), step),
        "n_shared_experts": dice.pick(1, 2),
        "routed_scaling_factor": dice.pick(1.0, 1.5, 2.5),
    }


def deepseek_rope(dice: Dice) -> Settings:
    theta = theta_of(dice)
    mscale = dice.pick(0.707, 1.0)
    return dice.pick(plain_rope(theta), yarn(dice, theta, mscale=mscale, mscale_all_dim=mscale))


def deepseek_v2(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= mla(dice, s, step)
    method = dice.pick("greedy", "group_limited_greedy")
    groups, each, groups_chosen = dice.pick((2, 4, 1), (4, 3, 2), (4, 4, 3))
    if method == "greedy":
        groups, each, groups_chosen = 1, groups * each, 1
    s |= {
        "rope_parameters": deepseek_rope(dice),
        "n_routed_experts": groups * each,
        "num_experts_per_tok": int(dice.rng.integers(1, groups_chosen * each // 2 + 2)),
        "topk_method": method,
        "n_group": groups,
        "topk_group": groups_chosen,
        "norm_topk_prob": False,
    }
    return Shape("deepseek_v2", s)


def deepseek_v3(dice: Dice, step: int = 8) -> Shape:
    s = common(dice, step)
    s |= mla(dice, s, step)
    groups, each, groups_chosen = dice.pick((1, 8, 1), (2, 4, 1), (4, 3, 2), (4, 4, 3))
    s |= {
        "rope_parameters": deepseek_rope(dice),
        "n_routed_experts": groups * each,
        "num_experts_per_tok": int(dice.rng.integers(1, groups_chosen * each // 2 + 2)),
        "n_group": groups,
        "topk_group": groups_chosen,
        "norm_topk_prob": dice.chance(0.7),
    }
    return Shape("deepseek_v3", s, mtp=dice.chance())


Family = Callable[[Dice], Shape]

FAMILIES: dict[str, Family] = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "mixtral": mixtral,
    "deepseek_v2": deepseek_v2,
    "deepseek_v3": deepseek_v3,
    "gemma3_text": gemma3_text,
    "gpt_oss": gpt_oss,
    "glm4_moe": glm4_moe,
    "minimax_m2": minimax_m2,
    "olmo3": olmo3,
    "smollm3": smollm3,
}
