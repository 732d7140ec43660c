"""How a tokenizer cuts text into words, recognised by its expression, and llama.cpp's name for it.

A BPE tokenizer merges only within words, so the cut decides what tokens exist. llama.cpp compiles the cuts it knows
into its code and picks one by name (`tokenizer.ggml.pre`). We compare the structure that tokenizer.json declares with
the table below; a fine-tune with other tokens has the same structure and so just works. What is not in the table is an
error, never a guess: a wrong cut gives a model that runs and answers worse.

Some cuts the engine makes differently. Then the file also names ours (`tokenizer.llamacli.cut`), which our runtime makes
in its stead. The names of the engine's are those of llama.cpp's vocabulary loader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llamacli.errors import CorruptFile, Unsupported
from llamacli.formats.expressions import (
    BAILING,
    BLOOM,
    CHAMELEON_PUNCTUATION,
    CJK_AND_KANA,
    CONTRACTIONS,
    CUTS,
    DEEPSEEK3,
    DIGIT,
    DIGITS,
    EXAONE_MOE,
    GPT2,
    GPT2_BYTES,
    JAIS2,
    LLAMA3,
    MINICPM5,
    NO_CONTRACTIONS,
    QWEN2,
    QWEN35,
    SEED_CODER,
    SPARK,
    YOUTU,
    YOUTU_SCRIPTS,
)

MAX_STEPS = 64
"""More pre-tokenizers in a row than any real tokenizer has."""


@dataclass(frozen=True)
class Name:
    """One of llama.cpp's names for a cut, and what else the engine does under it."""

    pre: str
    ignore_merges: bool = False
    """A word that is a token as it stands is taken whole, whether or not merges lead to it."""
    cleans_spaces: bool = True
    """Default of `clean_up_tokenization_spaces` when token ids become text."""
    needs_bos: bool | None = None
    """True where the engine assumes a BOS token if the file names none, False where it assumes none."""
    model_types: tuple[str, ...] = ()
    """`model_type`s whose files usually carry this name."""
    cut: str = ""
    """Key of CUTS where the engine's cut is not the tokenizer's: our runtime makes this one instead."""
    differs: str = ""
    """Where the engine's cut differs then, found by comparing them on random texts."""


def _kept(pre: str, *model_types: str) -> Name:
    return Name(pre, cleans_spaces=False, model_types=model_types)


def _ours(cut: str, differs: str, *, pre: str = "", ignore_merges: bool = False, cleans_spaces: bool = False) -> Name:
    return Name(pre or cut, ignore_merges, cleans_spaces, cut=cut, differs=differs)


_MARKS_KEPT = "granite-embed-multi-97m"
_WIDE_SPACES = "spaces of other widths after ordinary ones"


TABLE: dict[tuple[str, ...], tuple[Name, ...]] = {
    (LLAMA3,): (
        Name("llama-bpe", ignore_merges=True, needs_bos=True),
        Name("glm4", ignore_merges=True, needs_bos=False, model_types=("glm4", "glm4_moe", "glm4v")),
        Name("lfm2", ignore_merges=True, needs_bos=True, model_types=("lfm2", "lfm2_moe", "lfm2-vl")),
        Name("falcon-h1", ignore_merges=True, needs_bos=True, model_types=("falcon_h1",)),
        Name("smaug-bpe"),
        Name("dbrx", model_types=("dbrx", "olmo2", "olmo3")),
        Name("chatglm-bpe", needs_bos=False, model_types=("chatglm",)),
    ),
    (JAIS2,): (Name("jais-2"),),
    (QWEN2,): (
        _kept("qwen2"),
        Name("stablelm2", model_types=("stablelm",)),
        _kept("hunyuan", "hunyuan_v1_moe"),
        _kept("solar-open", "solar_open"),
        _kept("grok-2", "grok-2"),
    ),
    (QWEN35,): (_kept("qwen35"),),
    (NO_CONTRACTIONS,): (_kept("ufakzeka"),),
    (r"\p{N}{1,3}", MINICPM5): (Name("minicpm5", ignore_merges=True),),
    # Under the names gpt-4o, llama4, minimax-m2 and tekken the engine cuts words at combining marks, which takes every
    # word of Hindi, Bengali or Thai apart. Its granite cut does not, and is GPT-4o's but for capitals. Tekken cuts also
    # before every apostrophe and between digits.
    CUTS["gpt-4o"]: (_ours("gpt-4o", "capitals after capitals with accents", pre=_MARKS_KEPT, ignore_merges=True),),
    CUTS["tekken"]: (
        _ours("tekken", "capitals after capitals with accents, some apostrophes", pre=_MARKS_KEPT, ignore_merges=True),
    ),
    CUTS["tiny_aya"]: (_ours("tiny_aya", "runs of spaces in front of digits, and signs after them"),),
    # The engine leaves words with capitals inside whole; there are no merges across what the tokenizer cuts there.
    (YOUTU_SCRIPTS, YOUTU): (Name("youtu", ignore_merges=True, cleans_spaces=False),),
    (r"\p{N}{1,3}", CJK_AND_KANA, DEEPSEEK3): (
        _kept("deepseek-v3"),
        _kept("hunyuan-dense", "hunyuan_v1_dense"),
    ),
    (r"\p{N}{1,3}", CJK_AND_KANA, SPARK, DIGIT): (_kept("spark2_5"),),
    CUTS["deepseek-llm"]: (_ours("deepseek-llm", _WIDE_SPACES),),
    CUTS["deepseek-coder"]: (_ours("deepseek-coder", _WIDE_SPACES),),
    (GPT2_BYTES,): (
        Name("gpt-2"),
        Name("mpt", model_types=("mpt",)),
        Name("olmo", model_types=("olmo", "gpt_neox")),
        Name("exaone4", model_types=("exaone4",)),
    ),
    (DIGIT, GPT2_BYTES): (
        Name("starcoder"),
        _kept("smollm"),
        Name("starcoder", model_types=("starcoder2", "gpt_bigcode")),
        _kept("command-r", "cohere", "cohere2"),
        Name("exaone", model_types=("exaone",)),
        Name("refact", model_types=("gpt_refact",)),
    ),
    CUTS["falcon"]: (
        _ours("falcon", "spaces in front of punctuation that is newer than Unicode 8", cleans_spaces=True),
    ),
    ("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", DIGIT, CHAMELEON_PUNCTUATION,
     GPT2_BYTES): (Name("chameleon", cleans_spaces=False, needs_bos=True),),
    (BLOOM,): (_kept("poro-chat"), Name("bloom"), Name("gpt3-finnish")),
    (BLOOM, DIGIT): (_kept("viking"),),
    (BAILING,): (_kept("bailingmoe"),),
    (SEED_CODER,): (_kept("seed-coder"),),
    CUTS["laguna"]: (_ours("laguna", "lines that end in a carriage return"),),
    (EXAONE_MOE,): (Name("exaone-moe", model_types=("exaone_moe",)),),
    CUTS["superbpe"]: (_ours("superbpe", "digits of other scripts after ours"),),
}  # fmt: skip
"""Steps of a byte-level cut to the names under which the engine makes it; the first that fits best wins."""


@dataclass(frozen=True)
class Cut:
    """A pre-tokenizer as the table's key, and whether it is over bytes."""

    steps: tuple[str, ...]
    prefixes_space: bool = False
    """ByteLevel with `add_prefix_space`: a space goes in front of text that does not begin with one."""


def read_cut(pre_tokenizer: Any) -> Cut:
    """What tokenizer.json's `pre_tokenizer` does, as steps. Raises CorruptFile and Unsupported."""
    steps: list[str] = []
    prefixes_space = in_bytes = False
    for part in components(pre_tokenizer, "pretokenizers"):
        if in_bytes:  # what follows sees the byte alphabet instead of the text
            steps.append("(ByteLevel without its expression)")
            in_bytes = False
        if part.get("type") == "ByteLevel":
            if part.get("add_prefix_space", True) is True:
                if steps:  # every part of the text gets its space
                    steps.append("(add_prefix_space)")
                prefixes_space = True
            if part.get("use_regex", True) is True:
                steps.append(GPT2_BYTES)
            else:
                in_bytes = True
        else:
            steps.append(_step(part))
    return Cut(tuple(steps), prefixes_space)


def components(value: Any, key: str) -> Iterator[Mapping[str, Any]]:
    """The parts of a pre-tokenizer, normalizer, ... in order, with every Sequence unrolled."""
    pending, seen = [value], 0
    while pending:
        part = pending.pop()
        if part is None:
            continue
        if not isinstance(part, dict):
            raise CorruptFile("tokenizer.json: a pre-tokenizer, normalizer or processor is not an object")
        seen += 1
        if seen > MAX_STEPS:
            raise Unsupported(f"tokenizer.json chains more than {MAX_STEPS} pre-tokenizers, normalizers or processors")
        if part.get("type") == "Sequence":
            inner = part.get(key)
            pending.extend(reversed(inner if isinstance(inner, list) else []))
        else:
            yield part


def engine_name(cut: Cut, *, ignore_merges: bool, has_bos: bool, cleans_spaces: bool | None, model_type: str) -> Name:
    """The engine's name for `cut`. Raises Unsupported, showing the expression, if there is none.

    Several names share an expression: they differ in whether merges are ignored for whole words, in the BOS token
    that is assumed, and in the clean-up of spaces; what is left is the usual name of the model's type.
    """
    names = TABLE.get(cut.steps)
    if names is None:
        steps = " ; ".join(cut.steps) or "not at all"
        raise Unsupported(
            f"tokenizer.json cuts text in a way that the engine does not know: {shorten(steps)}",
            "convert with a version that knows this pre-tokenizer, or give the name of an equal one: "
            "--override-kv tokenizer.ggml.pre=str:NAME",
        )

    def fitness(name: Name) -> tuple[bool, ...]:
        return (
            name.ignore_merges == ignore_merges,
            name.needs_bos is None or name.needs_bos == has_bos,
            model_type in name.model_types,
            not name.model_types,
            cleans_spaces is None or name.cleans_spaces == cleans_spaces,
        )

    return max(names, key=fitness)


def shorten(text: str, limit: int = 120) -> str:
    """`text` in one line of at most `limit` characters."""
    text = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


_BEHAVIOURS = {"Isolated": "", "MergedWithNext": "next:", "MergedWithPrevious": "previous:", "Contiguous": "together:"}


def _step(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    if kind == "Digits":
        return DIGIT if part.get("individual_digits") is True else DIGITS
    if kind == "Punctuation":
        return f"punctuation:{part.get('behavior', 'Isolated')}"
    if kind == "Split":
        return _split(part)
    return f"({kind})"


def _split(part: Mapping[str, Any]) -> str:
    pattern = part.get("pattern")
    if not isinstance(pattern, dict):
        raise CorruptFile("tokenizer.json: a Split pre-tokenizer has no pattern")
    behaviour, inverted = part.get("behavior"), part.get("invert") is True
    literal = pattern.get("String")
    if isinstance(literal, str):
        return f"literal {behaviour}:{literal}"
    expression = pattern.get("Regex")
    if not isinstance(expression, str):
        raise CorruptFile("tokenizer.json: a Split pre-tokenizer has neither an expression nor a text")
    # "Removed, inverted" keeps only the matches: the same as "Isolated", for every expression here matches all text.
    if behaviour == "Removed" and inverted:
        return canonical(expression)
    prefix = _BEHAVIOURS.get(str(behaviour), f"{behaviour}:") if not inverted else f"inverted {behaviour}:"
    return prefix + canonical(expression)


_SPELLINGS = (
    ("\r", r"\r"),
    ("\n", r"\n"),
    (r"\p{N}{1}|", r"\p{N}|"),
    (r"\p{N}{1,1}|", r"\p{N}|"),
    (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", CONTRACTIONS),
    (r"[^\r\n\p{N}\p{L}]", r"[^\r\n\p{L}\p{N}]"),
    (r"[^\s\p{N}\p{L}]", r"[^\s\p{L}\p{N}]"),
)


def canonical(expression: str) -> str:
    """`expression` in the spelling of the table: the same language written in several ways becomes one."""
    for spelling, ours in _SPELLINGS:
        expression = expression.replace(spelling, ours)
    return GPT2_BYTES if expression == GPT2 else expression
