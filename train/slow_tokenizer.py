"""What decides how a tokenizer without tokenizer.json cuts text, beside its vocabulary."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

#: What all tokenizers have, whatever their class.
_OF_ALL = ("split_special_tokens", "truncation_side", "token_type_ids_pattern", "special_tokens_pattern")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")  # of a token that is no piece of text
#: Arguments of constructors that say where a tokenizer is, or what the digest has anyway. Special tokens are `_token`.
_OTHERS = ("_file", "_token", "_tokens", "name_or_path", "vocab", "merges", "model_max_length")


def rules(tokenizer: Any) -> bytes:
    """Return the settings, merges and models that a tokenizer cuts text by. Equal for its copies, wherever they lie.

    Of what the tokenizer was made with, these are the arguments that its class names: what else is there says where it
    was found, and differs after ``save_pretrained``.
    """
    content = {
        "settings": {**_settings(tokenizer), **{name: getattr(tokenizer, name, None) for name in _OF_ALL}},
        "merges": merges(tokenizer),
        "models": _models(tokenizer),
        "added": _added_tokens(tokenizer),
        "emoji": getattr(tokenizer, "demojizer", None) is not None,  # BERTweet's needs a package, and goes without it
    }
    return json.dumps(content, sort_keys=True, default=_shown).encode()


def _settings(tokenizer: Any) -> dict[str, Any]:
    """Return the arguments of the constructors by name, with their defaults where none are given."""
    found: dict[str, Any] = {}
    for each in type(tokenizer).__mro__[:-1]:
        own = vars(each).get("__init__")
        for name, argument in inspect.signature(own).parameters.items() if own else ():
            is_named = argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY) and name != "self"
            if is_named and name not in found and not name.endswith(_OTHERS):
                default = None if argument.default is argument.empty else argument.default
                found[name] = tokenizer.init_kwargs.get(name, getattr(tokenizer, name, default))
    return found


def merges(tokenizer: Any) -> list[Any]:
    """Return the merges of byte-pair encoding in their order, however their file is written; [] if there are none."""
    ranks = getattr(tokenizer, "bpe_ranks", None)
    return sorted(ranks, key=ranks.__getitem__) if isinstance(ranks, dict) else []


def _models(tokenizer: Any) -> list[str]:
    """Return the sha256 of each model of sentencepiece, whose scores are in no vocabulary."""
    names = {*getattr(tokenizer, "vocab_files_names", ()), "vocab_file", "spm_file"}
    values = [tokenizer.init_kwargs.get(name) or getattr(tokenizer, name, None) for name in sorted(names)]
    paths = sorted({str(each) for each in values if isinstance(each, (str, Path)) and str(each).endswith(".model")})
    return [hashlib.sha256(Path(each).read_bytes()).hexdigest() for each in paths if Path(each).is_file()]


def _added_tokens(tokenizer: Any) -> list[list[Any]]:
    """Return the tokens that are found in text before it is cut, with how."""
    added = sorted(getattr(tokenizer, "added_tokens_decoder", {}).items())
    return [[number, str(each), *(getattr(each, flag, None) for flag in _FLAGS)] for number, each in added]


def _shown(value: Any) -> Any:
    """Return a value that JSON does not know as one that is equal in another process."""
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else type(value).__name__
