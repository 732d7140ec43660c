"""Every family that is converted, in one explicit tuple: a new family is one file and one line here."""

from __future__ import annotations

import difflib

from llamacli.errors import Unsupported
from llamacli.families.afmoe import AFMOE
from llamacli.families.apertus import APERTUS
from llamacli.families.arcee import ARCEE
from llamacli.families.baichuan import BAICHUAN, XVERSE
from llamacli.families.bailing import BAILING_MOE2
from llamacli.families.base import Family
from llamacli.families.bert import BERT, DISTILBERT, JINA_V3, NOMIC_BERT, ROBERTA
from llamacli.families.bloom import BLOOM
from llamacli.families.cohere import COHERE2, COMMAND_R
from llamacli.families.config import Config
from llamacli.families.dbrx import DBRX
from llamacli.families.deci import DECI
from llamacli.families.deepseek import DEEPSEEK, DEEPSEEK2, GLM4_MOE_LITE, GLM_DSA, YOUTU
from llamacli.families.dots1 import DOTS1
from llamacli.families.ernie import ERNIE4_5, ERNIE4_5_MOE, PADDLE_OCR
from llamacli.families.exaone import EXAONE, EXAONE4, EXAONE_MOE
from llamacli.families.falcon import FALCON
from llamacli.families.falcon_h1 import FALCON_H1
from llamacli.families.gemma import GEMMA, GEMMA2
from llamacli.families.gemma3 import EMBEDDING_GEMMA, GEMMA3
from llamacli.families.gemma3n import GEMMA3N
from llamacli.families.gemma4 import GEMMA4
from llamacli.families.glm import GLM, GLM4_MOE, SOLAR_OPEN
from llamacli.families.glm4 import GLM4
from llamacli.families.gpt2 import GPT2
from llamacli.families.gpt_oss import GPT_OSS
from llamacli.families.gptneox import GPTNEOX
from llamacli.families.granite import GRANITE, GRANITE_MOE
from llamacli.families.hunyuan import HUNYUAN_DENSE, HUNYUAN_MOE, HUNYUAN_VL
from llamacli.families.internlm2 import INTERNLM2
from llamacli.families.jais2 import JAIS2
from llamacli.families.jamba import JAMBA
from llamacli.families.kimi_linear import KIMI_LINEAR
from llamacli.families.lfm2 import LFM2, LFM2_MOE
from llamacli.families.llama import LLAMA, LLAMA_EMBED
from llamacli.families.llama4 import LLAMA4
from llamacli.families.mamba import BAMBA, GRANITE_HYBRID, MAMBA1, MAMBA2
from llamacli.families.mimo2 import MIMO2
from llamacli.families.minicpm import MINICPM
from llamacli.families.minicpm3 import MINICPM3
from llamacli.families.minimax import MINIMAX_M2
from llamacli.families.mistral3 import CONSOLIDATED, CONSOLIDATED_SCALED, MISTRAL3, MISTRAL4
from llamacli.families.mixtral import MIXTRAL
from llamacli.families.modern_bert import EURO_BERT, MODERN_BERT
from llamacli.families.mpt import MPT
from llamacli.families.nemotron import NEMOTRON
from llamacli.families.nemotron_h import NEMOTRON_H, NEMOTRON_H_MOE
from llamacli.families.olmo import OLMO, OLMO2, OLMOE
from llamacli.families.orion import ORION
from llamacli.families.pangu import PANGU_EMBED
from llamacli.families.phi2 import PHI2
from llamacli.families.phi3 import PHI3
from llamacli.families.phimoe import PHIMOE
from llamacli.families.qwen1 import QWEN
from llamacli.families.qwen2 import QWEN2
from llamacli.families.qwen2_moe import QWEN2_MOE
from llamacli.families.qwen3 import QWEN3
from llamacli.families.qwen3_moe import QWEN3_MOE
from llamacli.families.qwen3_next import QWEN3_5, QWEN3_5_MOE, QWEN3_NEXT
from llamacli.families.qwen_vl import QWEN2_VL, QWEN3_VL, QWEN3_VL_MOE
from llamacli.families.seed_oss import SEED_OSS
from llamacli.families.smollm3 import SMOLLM3
from llamacli.families.stablelm import STABLELM
from llamacli.families.starcoder import STARCODER
from llamacli.families.starcoder2 import STARCODER2
from llamacli.families.wrappers import REFUSED, TEXT_MODELS

FAMILIES: tuple[Family, ...] = (
    LLAMA,
    MIXTRAL,
    MISTRAL3,
    CONSOLIDATED,
    CONSOLIDATED_SCALED,
    QWEN2,
    QWEN2_MOE,
    QWEN3,
    QWEN3_MOE,
    GEMMA,
    GEMMA2,
    GEMMA3,
    EMBEDDING_GEMMA,
    PHI3,
    SMOLLM3,
    GRANITE,
    GRANITE_MOE,
    OLMO,
    OLMO2,
    OLMOE,
    GLM4,
    COMMAND_R,
    COHERE2,
    EXAONE,
    EXAONE4,
    STABLELM,
    STARCODER2,
    FALCON,
    GPT2,
    DEEPSEEK,
    DEEPSEEK2,
    GPT_OSS,
    LFM2,
    LFM2_MOE,
    LLAMA4,
    NEMOTRON,
    QWEN3_5,
    QWEN3_5_MOE,
    QWEN3_NEXT,
    BERT,
    DISTILBERT,
    NOMIC_BERT,
    ROBERTA,
    PHI2,
    PHIMOE,
    ARCEE,
    SEED_OSS,
    GLM,
    GLM4_MOE,
    DOTS1,
    ERNIE4_5,
    ERNIE4_5_MOE,
    HUNYUAN_DENSE,
    HUNYUAN_MOE,
    MINIMAX_M2,
    MODERN_BERT,
    GRANITE_HYBRID,
    MAMBA1,
    MAMBA2,
    QWEN2_VL,
    QWEN3_VL,
    QWEN3_VL_MOE,
    GEMMA4,
    STARCODER,
    BLOOM,
    GPTNEOX,
    AFMOE,
    APERTUS,
    FALCON_H1,
    JAMBA,
    NEMOTRON_H,
    NEMOTRON_H_MOE,
    GEMMA3N,
    MPT,
    JAIS2,
    EURO_BERT,
    MISTRAL4,
    GLM4_MOE_LITE,
    YOUTU,
    EXAONE_MOE,
    BAMBA,
    SOLAR_OPEN,
    INTERNLM2,
    BAICHUAN,
    XVERSE,
    MINICPM,
    ORION,
    QWEN,
    MINICPM3,
    BAILING_MOE2,
    DECI,
    PADDLE_OCR,
    HUNYUAN_VL,
    KIMI_LINEAR,
    DBRX,
    MIMO2,
    GLM_DSA,
    PANGU_EMBED,
    LLAMA_EMBED,
    JINA_V3,
)


def family_of(config: Config) -> Family:
    """The family of a config.json. Raises Unsupported that names the nearest ones."""
    known = {name: family for family in FAMILIES for name in family.architectures}
    outer = config.wrapper.get("architectures")
    kind = str(config.get("model_type", default=""))
    text = TEXT_MODELS.get(kind, "") if config.wraps or not config.architecture else ""
    wanted = config.architecture or text or kind
    if not wanted:
        raise Unsupported("config.json names no architecture", 'it should have "architectures": ["..."]')
    if reason := REFUSED.get(wanted):
        raise Unsupported(f"architecture {wanted} is not supported", reason)
    for name in (config.architecture, *(outer if isinstance(outer, list) else ()), text):
        if family := known.get(str(name)):
            return family.sibling(config) or family
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    like = f"nearest: {', '.join(near)}; " if near else ""
    raise Unsupported(f"architecture {wanted} is not supported", f"{like}all: llamacli quantize --list-families")
