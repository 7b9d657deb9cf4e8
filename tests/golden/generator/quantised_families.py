"""The quantised forms of the families: which group sizes and settings a seed chooses."""

import math
from collections.abc import Callable

from generator import families
from generator.families import Dice, Family, Settings, Shape


def fp8(family: Callable[[Dice, int], Shape]) -> Family:
    def make(dice: Dice) -> Shape:
        shape = family(dice, 8)
        s = shape.settings
        # Blocks of 128 are cut at the edges.
        multiple = math.lcm(s["num_attention_heads"], 4)
        s["hidden_size"] = multiple * dice.size(136 // multiple + 1, 300 // multiple, 1)
        s["intermediate_size"] = dice.size(130, 300, 2)
        shape.quantisation = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "weight_block_size": dice.pick([128, 128], [128, 128], [64, 128]),
            "activation_scheme": "dynamic",
        }
        return shape

    return make


def mxfp4(dice: Dice) -> Shape:
    shape = families.gpt_oss(dice, 32)
    shape.quantisation = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    }
    return shape


def int4(family: Callable[[Dice, int], Shape], config: Callable[[Dice, int], Settings]) -> Family:
    def make(dice: Dice) -> Shape:
        group = dice.pick(32, 64, 128)
        shape = family(dice, group)
        if "head_dim" not in shape.settings:  # a divisor of hidden_size, which groups divide
            shape.settings |= {"num_attention_heads": 8, "num_key_value_heads": 4}
            shape.settings["hidden_size"] = dice.pick(256, 512)
        shape.quantisation = config(dice, group)
        return shape

    return make


def gptq_config(dice: Dice, group: int) -> Settings:
    return {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": group,
        "sym": dice.chance(),
        "desc_act": dice.chance(0.3),
        "checkpoint_format": dice.pick("gptq", "gptq", "gptq_v2"),
    }


def awq_config(dice: Dice, group: int) -> Settings:
    return {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group,
        "zero_point": True,
        "version": "gemm",
    }


def pack_quantized_config(dice: Dice, group: int) -> Settings:
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": group,
        "dynamic": False,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head", "re:.*(mlp|block_sparse_moe).gate$"],
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}
        },
    }


FAMILIES: dict[str, Family] = families.FAMILIES | {
    "deepseek_v3_fp8": fp8(families.deepseek_v3),
    "qwen3_fp8": fp8(families.qwen3),
    "minimax_m2_fp8": fp8(families.minimax_m2),
    "gpt_oss_mxfp4": mxfp4,
    "llama_gptq": int4(families.llama, gptq_config),
    "qwen2_gptq": int4(families.qwen2, gptq_config),
    "llama_awq": int4(families.llama, awq_config),
    "mixtral_awq": int4(families.mixtral, awq_config),
    "llama_ct": int4(families.llama, pack_quantized_config),
    "qwen3_moe_ct": int4(families.qwen3_moe, pack_quantized_config),
}
