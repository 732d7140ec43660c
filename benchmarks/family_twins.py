"""Families without a class in transformers, computed by one that has the same mathematics under other names.

Each twin says which tensors a checkpoint of the family has, and how those of the other class are made of them. The
conversion knows nothing of this file: fusing and splitting are written here a second time, in torch and the other way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch  # noqa: TID251
from transformers.models.deepseek_v2.configuration_deepseek_v2 import DeepseekV2Config  # noqa: TID251
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe  # noqa: TID251
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP  # noqa: TID251

Shapes = dict[str, tuple[int, ...]]
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Twin:
    """The other class, its configuration, the family's tensors, and the other's made of them."""

    kind: str
    config: Callable[[Mapping[str, Any]], dict[str, Any]]
    shapes: Callable[[Mapping[str, Any]], Shapes]
    state: Callable[[Mapping[str, Any], State], State]
    change: Callable[[Mapping[str, Any], Any], None] = lambda c, model: None
    """What the other class has no settings for."""


@dataclass(frozen=True)
class Wrapped:
    """A wrapper that transformers does not have: the other class's checkpoint behind `front`, and tensors to be left out."""

    kind: str
    config: Callable[[Mapping[str, Any]], dict[str, Any]]
    others: Shapes
    front: str = ""


def _widths(c: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    heads = c["num_attention_heads"]
    return (
        c["hidden_size"],
        c["intermediate_size"],
        heads,
        c.get("num_key_value_heads", heads),
        c["hidden_size"] // heads,
    )


def _llama_shapes(c: Mapping[str, Any]) -> Shapes:
    h, ff, heads, kv, d = _widths(c)
    shapes: Shapes = {"model.embed_tokens.weight": (c["vocab_size"], h)}
    for block in range(c["num_hidden_layers"]):
        for name, shape in (
            ("self_attn.q_proj", (heads * d, h)), ("self_attn.k_proj", (kv * d, h)), ("self_attn.v_proj", (kv * d, h)),
            ("self_attn.o_proj", (h, heads * d)), ("mlp.gate_proj", (ff, h)), ("mlp.up_proj", (ff, h)),
            ("mlp.down_proj", (h, ff)), ("input_layernorm", (h,)), ("post_attention_layernorm", (h,)),
        ):  # fmt: skip
            shapes[f"model.layers.{block}.{name}.weight"] = shape
    return {**shapes, "model.norm.weight": (h,), "lm_head.weight": (c["vocab_size"], h)}


def _as(kind: str, **changes: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The same configuration under another model_type."""
    return lambda c: {**c, "model_type": kind, "architectures": None, **changes}


def _baichuan_shapes(c: Mapping[str, Any]) -> Shapes:
    shapes = {
        name: shape for name, shape in _llama_shapes(c).items() if ".k_proj" not in name and ".v_proj" not in name
    }
    return {
        name.replace("q_proj", "W_pack"): (3 * c["hidden_size"], c["hidden_size"]) if "q_proj" in name else shape
        for name, shape in shapes.items()
    }


def _unpack(c: Mapping[str, Any], found: State) -> State:
    state: State = {}
    for name, tensor in found.items():
        if "W_pack" not in name:
            state[name] = tensor
            continue
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            state[name.replace("W_pack", f"{part}_proj")] = rows
    return state


_INTERN = {
    "tok_embeddings": "embed_tokens", "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj", "feed_forward.w2": "mlp.down_proj", "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def _internlm2_shapes(c: Mapping[str, Any]) -> Shapes:
    h, _, heads, kv, d = _widths(c)
    shapes: Shapes = {}
    for name, shape in _llama_shapes(c).items():
        if ".k_proj" in name or ".v_proj" in name:
            continue
        for new, old in _INTERN.items():
            name = name.replace(f".{old}.", f".{new}.")
        name = name.replace("lm_head", "output").replace("self_attn.q_proj", "attention.wqkv")
        shapes[name] = ((heads + 2 * kv) * d, h) if "wqkv" in name else shape
    return shapes


def _internlm2_state(c: Mapping[str, Any], found: State) -> State:
    h, _, heads, kv, d = _widths(c)
    state: State = {}
    for name, tensor in found.items():
        for new, old in _INTERN.items():
            name = name.replace(f".{new}.", f".{old}.")
        name = name.replace("output.weight", "lm_head.weight") if name == "output.weight" else name
        if "wqkv" not in name:
            state[name] = tensor
            continue
        groups = tensor.view(kv, heads // kv + 2, d, h)
        parts = {"q": groups[:, :-2], "k": groups[:, -2], "v": groups[:, -1]}
        for part, rows in parts.items():
            state[name.replace("attention.wqkv", f"self_attn.{part}_proj")] = rows.reshape(-1, h)
    return state


def _minicpm_config(c: Mapping[str, Any]) -> dict[str, Any]:
    """Granite's multipliers, from MiniCPM's."""
    _, _, _, _, d = _widths(c)
    return _as(
        "granite", embedding_multiplier=c["scale_emb"], residual_multiplier=c["scale_depth"] / c["num_hidden_layers"] ** 0.5,
        attention_multiplier=d**-0.5, logits_scaling=c["hidden_size"] / c["dim_model_base"],
    )(c)  # fmt: skip


def _orion_shapes(c: Mapping[str, Any]) -> Shapes:
    shapes = _llama_shapes(c)
    return {**shapes, **{n.replace("weight", "bias"): s for n, s in shapes.items() if "norm" in n}}


def _qwen_shapes(c: Mapping[str, Any]) -> Shapes:
    h, ff = c["hidden_size"], c["intermediate_size"] // 2
    shapes: Shapes = {"transformer.wte.weight": (c["vocab_size"], h)}
    for block in range(c["num_hidden_layers"]):
        for name, shape in (
            ("attn.c_attn.weight", (3 * h, h)), ("attn.c_attn.bias", (3 * h,)), ("attn.c_proj.weight", (h, h)),
            ("ln_1.weight", (h,)), ("ln_2.weight", (h,)), ("mlp.w1.weight", (ff, h)), ("mlp.w2.weight", (ff, h)),
            ("mlp.c_proj.weight", (h, ff)),
        ):  # fmt: skip
            shapes[f"transformer.h.{block}.{name}"] = shape
    return {**shapes, "transformer.ln_f.weight": (h,), "lm_head.weight": (c["vocab_size"], h)}


_QWEN = {
    "transformer.wte": "model.embed_tokens", "transformer.ln_f": "model.norm", "transformer.h.": "model.layers.",
    "attn.c_proj": "self_attn.o_proj", "ln_1": "input_layernorm", "ln_2": "post_attention_layernorm",
    "mlp.w2": "mlp.gate_proj", "mlp.w1": "mlp.up_proj", "mlp.c_proj": "mlp.down_proj",
}  # fmt: skip
"""The second of its two matrices goes through the activation."""


def _qwen_state(c: Mapping[str, Any], found: State) -> State:
    state: State = {}
    for name, tensor in found.items():
        for new, old in _QWEN.items():
            name = name.replace(new, old)
        if "c_attn" not in name:
            state[name] = tensor
            continue
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            state[name.replace("attn.c_attn", f"self_attn.{part}_proj")] = rows
    return state


def _internlm3_shapes(c: Mapping[str, Any]) -> Shapes:
    shapes = _llama_shapes(c)
    biases = {n.replace("weight", "bias"): (s[0],) for n, s in shapes.items() if n.endswith(_QKV)}
    return {**shapes, **biases}


_QKV = ("q_proj.weight", "k_proj.weight", "v_proj.weight")


def _internlm3_state(c: Mapping[str, Any], found: State) -> State:
    outputs = [name for name in found if name.endswith("o_proj.weight")]
    return {**found, **{name.replace("weight", "bias"): torch.zeros(found[name].shape[0]) for name in outputs}}


def _bailing_shapes(c: Mapping[str, Any]) -> Shapes:
    h, ff, heads, kv, _ = _widths(c)
    d, experts, width = c["head_dim"], c["num_experts"], c["moe_intermediate_size"]
    shapes: Shapes = {"model.word_embeddings.weight": (c["vocab_size"], h)}
    for block in range(c["num_hidden_layers"]):
        front = f"model.layers.{block}."
        shapes |= {
            f"{front}attention.query_key_value.weight": ((heads + 2 * kv) * d, h),
            f"{front}attention.dense.weight": (h, heads * d),
            f"{front}attention.query_layernorm.weight": (d,), f"{front}attention.key_layernorm.weight": (d,),
            f"{front}input_layernorm.weight": (h,), f"{front}post_attention_layernorm.weight": (h,),
        }  # fmt: skip
        mlps = [("mlp.", ff)]
        if block >= c["first_k_dense_replace"]:
            shapes |= {f"{front}mlp.gate.weight": (experts, h), f"{front}mlp.gate.expert_bias": (experts,)}
            mlps = [(f"mlp.experts.{n}.", width) for n in range(experts)] + [("mlp.shared_experts.", width)]
        for stem, wide in mlps:
            shapes |= {
                f"{front}{stem}gate_proj.weight": (wide, h), f"{front}{stem}up_proj.weight": (wide, h),
                f"{front}{stem}down_proj.weight": (h, wide),
            }  # fmt: skip
    return {**shapes, "model.norm.weight": (h,), "lm_head.weight": (c["vocab_size"], h)}


_BAILING = {
    "word_embeddings": "embed_tokens", "attention.dense": "self_attn.o_proj", "attention.query_layernorm": "self_attn.q_norm",
    "attention.key_layernorm": "self_attn.k_norm", "gate.expert_bias": "gate.e_score_correction_bias",
}  # fmt: skip


def _bailing_state(c: Mapping[str, Any], found: State) -> State:
    heads, kv, d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    state: State = {}
    for name, tensor in found.items():
        for new, old in _BAILING.items():
            name = name.replace(new, old)
        if ".mlp.experts." in name:
            continue
        if "query_key_value" not in name:
            state[name] = tensor
            continue
        for part, rows in zip("qkv", tensor.split([heads * d, kv * d, kv * d]), strict=True):
            state[name.replace("attention.query_key_value", f"self_attn.{part}_proj")] = rows
    return state | _stacks(c, found, c["num_experts"])


def _stacks(c: Mapping[str, Any], found: State, experts: int) -> State:
    """Experts one by one as the stacks that transformers 5 computes with."""
    state: State = {}
    for block in range(c["first_k_dense_replace"], c["num_hidden_layers"]):
        front = f"model.layers.{block}.mlp.experts."
        part = {
            name: torch.stack([found[f"{front}{n}.{name}.weight"] for n in range(experts)])
            for name in ("gate_proj", "up_proj", "down_proj")
        }
        state[f"{front}gate_up_proj"] = torch.cat([part["gate_proj"], part["up_proj"]], dim=1)
        state[f"{front}down_proj"] = part["down_proj"]
    return state


def _deepseek_shapes(c: Mapping[str, Any]) -> Shapes:
    h, width = c["hidden_size"], c["moe_intermediate_size"]
    shapes = _llama_shapes(c)
    for block in range(c["first_k_dense_replace"], c["num_hidden_layers"]):
        front = f"model.layers.{block}.mlp."
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(front)}
        shapes[f"{front}gate.weight"] = (c["n_routed_experts"], h)
        stems = {f"experts.{n}.": width for n in range(c["n_routed_experts"])}
        for stem, wide in {**stems, "shared_experts.": width * c["n_shared_experts"]}.items():
            shapes |= {
                f"{front}{stem}gate_proj.weight": (wide, h), f"{front}{stem}up_proj.weight": (wide, h),
                f"{front}{stem}down_proj.weight": (h, wide),
            }  # fmt: skip
    return shapes


def _deepseek_change(c: Mapping[str, Any], model: Any) -> None:
    """Llama's attention before DeepSeek 2's experts."""
    settings = DeepseekV2Config(**{**c, "model_type": "deepseek_v2", "architectures": None})
    for layer in model.model.layers[c["first_k_dense_replace"] :]:
        layer.mlp = DeepseekV2Moe(settings).to(torch.float32)


def _deepseek_state(c: Mapping[str, Any], found: State) -> State:
    state = {name: tensor for name, tensor in found.items() if ".mlp.experts." not in name}
    return state | _stacks(c, found, c["n_routed_experts"])


def _deci_width(c: Mapping[str, Any], block: Mapping[str, Any]) -> int:
    return -(-int(2 * block["ffn"]["ffn_mult"] * c["hidden_size"] / 3) // 256) * 256


def _deci_shape(
    name: str, shape: tuple[int, ...], c: Mapping[str, Any], block: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """A tensor's shape in a block, None if the block does without it."""
    group, linear, wide = (
        block["attention"]["n_heads_in_group"], block["attention"]["replace_with_linear"], block["ffn"]["ffn_mult"],
    )  # fmt: skip
    if "self_attn" in name and group is None:
        return None
    if "input_layernorm" in name:
        return shape if group is not None or linear else None
    if ".mlp." in name or "post_attention_layernorm" in name:
        if wide is None:
            return None
        return tuple(_deci_width(c, block) if extent == 0 else extent for extent in shape)
    if name.endswith(("k_proj.weight", "v_proj.weight")):
        return (shape[0] // group, shape[1])
    return shape


def _deci_shapes(c: Mapping[str, Any]) -> Shapes:
    plain = _llama_shapes({**c, "intermediate_size": 0})
    shapes: Shapes = {name: shape for name, shape in plain.items() if ".layers." not in name}
    for number, block in enumerate(c["block_configs"]):
        front = f"model.layers.{number}."
        for name in (name for name in plain if name.startswith(front)):
            if (shape := _deci_shape(name, plain[name], c, block)) is not None:
                shapes[name] = shape
        if block["attention"]["replace_with_linear"]:
            shapes[f"{front}self_attn.linear_attn.weight"] = (c["hidden_size"], c["hidden_size"])
    return shapes


class _Nothing(torch.nn.Module):
    def forward(self, hidden_states: torch.Tensor, **others: Any) -> Any:
        return torch.zeros_like(hidden_states), None


class _NoNetwork(torch.nn.Module):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(hidden_states)


class _Matrix(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_attn = torch.nn.Linear(width, width, bias=False)

    def forward(self, hidden_states: torch.Tensor, **others: Any) -> Any:
        return self.linear_attn(hidden_states), None


def _deci_change(c: Mapping[str, Any], model: Any) -> None:
    """Llama's blocks with other widths, or parts of them taken out."""
    for number, (layer, block) in enumerate(zip(model.model.layers, c["block_configs"], strict=True)):
        settings = copy.deepcopy(model.config)
        group, wide = block["attention"]["n_heads_in_group"], block["ffn"]["ffn_mult"]
        if group is not None:
            settings.num_key_value_heads = c["num_attention_heads"] // group
            layer.self_attn = LlamaAttention(settings, number)
        elif block["attention"]["replace_with_linear"]:
            layer.self_attn = _Matrix(c["hidden_size"])
        else:
            layer.self_attn, layer.input_layernorm = _Nothing(), torch.nn.Identity()
        if wide is None:
            layer.mlp, layer.post_attention_layernorm = _NoNetwork(), torch.nn.Identity()
        else:
            settings.intermediate_size = _deci_width(c, block)
            layer.mlp = LlamaMLP(settings)


def _baichuan_change(c: Mapping[str, Any], model: Any) -> None:
    """Unit rows of the output where it is asked for; from 40 blocks on distances instead of angles (ALiBi, section 3)."""
    if c.get("norm_head"):
        model.lm_head.forward = lambda hidden: hidden @ torch.nn.functional.normalize(model.lm_head.weight).T
    if c["num_hidden_layers"] != 40:
        return
    heads, width = c["num_attention_heads"], c["hidden_size"] // c["num_attention_heads"]
    slopes = torch.tensor([2 ** (-8 * (head + 1) / heads) for head in range(heads)])
    model.model.rotary_emb.forward = lambda hidden, position_ids: _no_angles(hidden.shape[1], width)
    for layer in model.model.layers:
        layer.self_attn.forward = _with_distances(layer.self_attn.forward, slopes)


def _no_angles(length: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(1, length, width), torch.zeros(1, length, width)


def _with_distances(attention: Callable[..., Any], slopes: torch.Tensor) -> Callable[..., Any]:
    def forward(hidden_states: torch.Tensor, attention_mask: torch.Tensor, **others: Any) -> Any:
        places = torch.arange(hidden_states.shape[1])
        far = (places[None, :] - places[:, None]).clamp(max=0)[None, None] * slopes[None, :, None, None]
        return attention(hidden_states=hidden_states, attention_mask=attention_mask + far, **others)

    return forward


_EXAONE = {
    "model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f", "model.layers.": "transformer.h.",
    "self_attn.": "attn.attention.", "attention.o_proj": "attention.out_proj", "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2", "mlp.gate_proj": "mlp.c_fc_0", "mlp.up_proj": "mlp.c_fc_1",
    "mlp.down_proj": "mlp.c_proj",
}  # fmt: skip


def _exaone_name(name: str) -> str:
    for old, new in _EXAONE.items():
        name = name.replace(old, new)
    return name


def _exaone_config(c: Mapping[str, Any]) -> dict[str, Any]:
    return _as("llama", num_hidden_layers=c["num_layers"], rms_norm_eps=c["layer_norm_epsilon"])(c)


def _exaone_state(c: Mapping[str, Any], found: State) -> State:
    return {name: found[_exaone_name(name)] for name in _llama_shapes(_exaone_config(c))}


def _same(c: Mapping[str, Any], found: State) -> State:
    return found


def _text(c: Mapping[str, Any]) -> dict[str, Any]:
    return dict(c["text_config"])


WRAPPED: Mapping[str, Wrapped] = {
    "KimiVLForConditionalGeneration": Wrapped(
        "DeepseekV3ForCausalLM", _text,
        {"vision_tower.patch_embed.proj.weight": (16, 3, 4, 4), "multi_modal_projector.linear_1.weight": (64, 16)},
        "language_model.",
    ),
    "KimiK25ForConditionalGeneration": Wrapped(
        "DeepseekV3ForCausalLM", lambda c: {**c["text_config"], "model_type": "deepseek_v3"},
        {"vision_tower.patch_embed.proj.weight": (16, 3, 4, 4), "mm_projector.proj.0.weight": (64, 16)},
        "language_model.",
    ),
    "YoutuVLForConditionalGeneration": Wrapped(
        "YoutuForCausalLM", _as("youtu"),
        {"siglip2.vision_model.encoder.layers.0.mlp.fc1.weight": (32, 16), "merger.mlp.0.weight": (64, 16)},
    ),
    "DotsOCRForCausalLM": Wrapped(
        "Qwen2ForCausalLM", _as("qwen2"),
        {"vision_tower.blocks.0.attn.qkv.weight": (48, 16), "vision_tower.merger.mlp.0.weight": (64, 16)},
    ),
    "LlavaLlamaForCausalLM": Wrapped(
        "LlamaForCausalLM", _as("llama"),
        {"model.vision_tower.vision_tower.vision_model.class_embedding": (16,), "model.mm_projector.0.weight": (64, 16),
         "model.mm_projector.0.bias": (64,), "model.image_newline": (64,)},
    ),
    "LlavaMistralForCausalLM": Wrapped(
        "MistralForCausalLM", _as("mistral"),
        {"model.vision_tower.vision_tower.vision_model.class_embedding": (16,), "model.mm_projector.0.weight": (64, 16)},
    ),
    "PanguEmbeddedForCausalLM": Wrapped("LlamaForCausalLM", _as("llama", attention_bias=True), {}),
    "LlamaBidirectionalModel": Wrapped("LlamaModel", _as("llama", is_causal=False), {}),
}  # fmt: skip

TWINS: Mapping[str, Twin] = {
    "InternLM3ForCausalLM": Twin("LlamaForCausalLM", _as("llama", attention_bias=True), _internlm3_shapes, _internlm3_state),
    "BailingMoeV2ForCausalLM": Twin(
        "Glm4MoeForCausalLM",
        lambda c: _as("glm4_moe", n_routed_experts=c["num_experts"], n_shared_experts=c["num_shared_experts"], use_qk_norm=True,
                      attention_bias=False, rope_parameters={
                          "rope_type": "default", "rope_theta": c["rope_theta"], "partial_rotary_factor": 0.5})(c),
        _bailing_shapes, _bailing_state,
    ),
    "DeciLMForCausalLM": Twin("LlamaForCausalLM", _as("llama", intermediate_size=8), _deci_shapes, _same, _deci_change),
    "InternLM2ForCausalLM": Twin("LlamaForCausalLM", _as("llama"), _internlm2_shapes, _internlm2_state),
    "BaichuanForCausalLM": Twin("LlamaForCausalLM", _as("llama"), _baichuan_shapes, _unpack, _baichuan_change),
    "DeepseekForCausalLM": Twin("LlamaForCausalLM", _as("llama"), _deepseek_shapes, _deepseek_state, _deepseek_change),
    "ExaoneForCausalLM": Twin(
        "LlamaForCausalLM", _exaone_config,
        lambda c: {_exaone_name(name): shape for name, shape in _llama_shapes(_exaone_config(c)).items()}, _exaone_state,
    ),
    "XverseForCausalLM": Twin("LlamaForCausalLM", _as("llama"), _llama_shapes, _same),
    "MiniCPMForCausalLM": Twin("GraniteForCausalLM", _minicpm_config, _llama_shapes, _same),
    "OrionForCausalLM": Twin(
        "StableLmForCausalLM",
        lambda c: _as("stablelm", layer_norm_eps=c["rms_norm_eps"], partial_rotary_factor=1.0, rope_parameters={
            "rope_type": "default", "rope_theta": c["rope_theta"], "partial_rotary_factor": 1.0})(c),
        _orion_shapes, _same,
    ),
    "QWenLMHeadModel": Twin(
        "Qwen2ForCausalLM",
        lambda c: _as("qwen2", intermediate_size=c["intermediate_size"] // 2, num_key_value_heads=c["num_attention_heads"],
                      rms_norm_eps=c["layer_norm_epsilon"], rope_theta=c["rotary_emb_base"],
                      max_position_embeddings=c["seq_length"])(c),
        _qwen_shapes, _qwen_state,
    ),
}  # fmt: skip
