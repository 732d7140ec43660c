"""How a tokenizer cuts text into words, recognised by its expression, and llama.cpp's name for it.

A BPE tokenizer merges only within words, so the cut decides what tokens exist. llama.cpp compiles the cuts it knows
into its code and picks one by name (`tokenizer.ggml.pre`). We compare the structure that tokenizer.json declares with
the table below; a fine-tune with other tokens has the same structure and so just works. What is not in the table is an
error, never a guess: a wrong cut gives a model that runs and answers worse.

The expressions are those of the models' own tokenizer.json files, the names those of llama.cpp's vocabulary loader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llamacli.errors import CorruptFile, Unsupported

MAX_STEPS = 64
"""More pre-tokenizers in a row than any real tokenizer has."""

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SLASH_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ASCII_PUNCTUATION = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
_DEEPSEEK_LETTERS = (
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-"
    "\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8"
    "-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+"
)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_TAIL}"
QWEN2 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_TAIL}"
QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NO_CONTRACTIONS = rf"{_WORD}|\p{{N}}|{_TAIL}"
JAIS2 = (
    rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+"
    r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)"
    r"|\s{1,2}(?!\S)|\s{1}"
)
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_SLASH_TAIL}"
)
TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}|{_SLASH_TAIL}"
YOUTU = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}|{_SLASH_TAIL}"
)
YOUTU_SCRIPTS = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"
DEEPSEEK3 = (
    rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPARK = (
    rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
SEED_CODER = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
EXAONE_MOE = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
MINICPM5 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}+|{_TAIL}"
RIGHT_GROUPED_DIGITS = r"\d{1,3}(?=(?:\d{3})*\b)"
NEWLINES_FIRST = r"(?:\r?\n)+(?!\r?\n)"
CJK = "[一-龥ࠀ-一가-퟿]+"
CJK_AND_KANA = "[一-龥぀-ゟ゠-ヿ]+"
CHAMELEON_PUNCTUATION = r"[\p{P}!-/:-@\[-`{-~]"

DIGIT, DIGITS, GPT2_BYTES = "digit", "digits", "gpt2"
"""Steps that are no expression: each digit alone, runs of digits, GPT-2's cut followed by its byte alphabet."""


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
    cuts_before: str = ""
    """Characters at which the tokenizer cuts after a letter and the engine does not."""
    differs: str = ""
    """Where the engine's cut is not the tokenizer's otherwise, found by comparing them on random texts; empty for nowhere."""


def _kept(pre: str, *model_types: str, differs: str = "") -> Name:
    return Name(pre, cleans_spaces=False, model_types=model_types, differs=differs)


_MARKS_KEPT = Name("granite-embed-multi-97m", ignore_merges=True, cleans_spaces=False)
_WIDE_SPACES = "spaces of other widths after ordinary ones"
_MARKS_CUT = "words with combining marks"


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
    # word of Hindi, Bengali or Thai apart. Its granite cut does not, and is GPT-4o's. It is coarser than Tekken's, which
    # cuts before every apostrophe and between digits: Tekken has no merges across these, so the tokens are the same but
    # for words like "Ankara'da", where an English contraction seems to stand in the middle.
    (GPT4O,): (_MARKS_KEPT, Name("gpt-4o", cleans_spaces=False, differs=_MARKS_CUT)),
    (TEKKEN,): (
        replace(_MARKS_KEPT, cuts_before="'"),
        Name("tekken", ignore_merges=True, cleans_spaces=False, differs=_MARKS_CUT),
    ),
    (RIGHT_GROUPED_DIGITS, GPT4O): (
        _kept("tiny_aya", differs="runs of spaces in front of digits and words with capitals inside"),
    ),
    (YOUTU_SCRIPTS, YOUTU): (
        Name("youtu", ignore_merges=True, cleans_spaces=False, differs="words with capitals inside"),
    ),
    (r"\p{N}{1,3}", CJK_AND_KANA, DEEPSEEK3): (
        _kept("deepseek-v3"),
        _kept("hunyuan-dense", "hunyuan_v1_dense"),
    ),
    (r"\p{N}{1,3}", CJK_AND_KANA, SPARK, DIGIT): (_kept("spark2_5"),),
    (r"[\r\n]", _DEEPSEEK_LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", CJK, DIGIT): (
        _kept("deepseek-llm", differs=_WIDE_SPACES),
    ),
    (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, DIGIT): (_kept("deepseek-coder", differs=_WIDE_SPACES),),
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
    ("punctuation:Contiguous", GPT2_BYTES, DIGITS, "[0-9][0-9][0-9]"): (
        Name("falcon", differs="spaces in front of punctuation that is newer than Unicode 8"),
    ),
    ("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", DIGIT, CHAMELEON_PUNCTUATION,
     GPT2_BYTES): (Name("chameleon", cleans_spaces=False, needs_bos=True),),
    (BLOOM,): (_kept("poro-chat"), Name("bloom"), Name("gpt3-finnish")),
    (BLOOM, DIGIT): (_kept("viking"),),
    (BAILING,): (_kept("bailingmoe"),),
    (SEED_CODER,): (_kept("seed-coder"),),
    (f"next:{NEWLINES_FIRST}", QWEN2): (_kept("laguna", differs="lines that end in a carriage return"),),
    (EXAONE_MOE,): (Name("exaone-moe", model_types=("exaone_moe",)),),
    (r"\p{N}+", r"(?=(\d{3})+(?!\d))"): (_kept("superbpe"),),
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
    prefixes_space = False
    for part in components(pre_tokenizer, "pretokenizers"):
        if part.get("type") == "ByteLevel":
            prefixes_space |= part.get("add_prefix_space", True) is True
            if part.get("use_regex", True) is True:
                steps.append(GPT2_BYTES)
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
            not name.differs,
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
    (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", _CONTRACTIONS),
    (r"[^\r\n\p{N}\p{L}]", r"[^\r\n\p{L}\p{N}]"),
    (r"[^\s\p{N}\p{L}]", r"[^\s\p{L}\p{N}]"),
)


def canonical(expression: str) -> str:
    """`expression` in the spelling of the table: the same language written in several ways becomes one."""
    for spelling, ours in _SPELLINGS:
        expression = expression.replace(spelling, ours)
    return GPT2_BYTES if expression == GPT2 else expression
