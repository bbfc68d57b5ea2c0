"""A model's tokenizer, fitted to what its body takes: length, segments, padding; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringtune.train import adapter_folder
from ringtune.train.body import Body
from ringtune.train.contract import UsageError
from ringtune.train.first_token import FAMILIES
from ringtune.train.pretrained import error_in_one_line, read_config, unusable
from ringtune.train.tokens import TYPES

DEFAULT_MAX_SEQ_LENGTH = 128
NO_LIMIT = 1 << 20  # tokenizers without a limit of their own name an enormous number
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "spiece.model", "sentencepiece.bpe.model")
Report = Callable[[str], None]


@dataclass(frozen=True)
class RowLimit:
    """How many tokens a row may have."""

    num_tokens: int | None  # None: any number
    owner: str  # who sets it, in a few words

    def settle(self, asked: int | None, report: Report) -> int:
        """Return ``--max_seq_length``: as asked for, or 128, or less where the model takes no more.

        Raises UsageError for more than the model takes.
        """
        limit = self.num_tokens
        if asked is None:
            if limit is not None and limit < DEFAULT_MAX_SEQ_LENGTH:
                report(f"rows have {limit} tokens at most: {self.owner} takes no more (--max_seq_length)")
                return limit
            return DEFAULT_MAX_SEQ_LENGTH
        if limit is not None and asked > limit:
            raise UsageError(
                "--max_seq_length",
                f"{asked} is more than the model takes",
                legal=f"at most {limit}: {self.owner} takes no more",
                todo="lower it, or leave it out",
            )
        return asked


@dataclass(frozen=True)
class Fitted:
    """A tokenizer that fits its model."""

    tokenizer: Any
    limit: RowLimit
    num_known_tokens: int  # that the model has embeddings for


def open_tokenizer(name: str, report: Report) -> Fitted:
    """Return the tokenizer of a model, from its folder or the hub, fitted to the model. Raises UsageError.

    report: takes what is changed, a line each.
    """
    base = adapter_folder.base_of(name)
    folder = Path(name).expanduser()
    has_own = base == name or any((folder / each).exists() for each in TOKENIZER_FILES)
    tokenizer = load_tokenizer(name if has_own else base)
    config = read_config(base)
    with error_in_one_line(base):
        body = Body.of(config)
    where = f"--model_name_or_path {name}"
    for each in (
        _fit_padding(tokenizer, body, config, where),
        _fit_side(tokenizer, body, config),
        _fit_segments(tokenizer, body, where),
    ):
        if each:
            report(f"model {name}: {each}")
    return Fitted(tokenizer, limit_of(tokenizer, body), body.num_tokens)


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of a model as it is."""
    from transformers import AutoTokenizer

    folder = Path(name).expanduser()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # of a damaged file transformers raises whatever its parsers do
        if folder.is_dir() and not any((folder / each).exists() for each in TOKENIZER_FILES):
            raise _no_tokenizer(name) from None
        raise unusable(name, "tokenizer", error) from None
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # what a folder without tokenizer files gives
        raise _no_tokenizer(name)
    return tokenizer


def _no_tokenizer(name: str) -> UsageError:
    return UsageError(
        f"--model_name_or_path {name}",
        "no tokenizer could be read from it: there are no words in it",
        legal=f"a folder with tokenizer files: {', '.join(TOKENIZER_FILES)}",
        todo="copy those of the model that its weights come from",
    )


def limit_of(tokenizer: Any, body: Body) -> RowLimit:
    """Return how many tokens both take. **Pure.**"""
    own = tokenizer.model_max_length if tokenizer.model_max_length < NO_LIMIT else None
    limits = [(own, "its tokenizer (model_max_length)"), (body.num_positions, "the model (its position embeddings)")]
    known = [(int(number), owner) for number, owner in limits if number is not None]
    return RowLimit(*min(known)) if known else RowLimit(None, "")


def _fit_padding(tokenizer: Any, body: Body, config: Any, where: str) -> str:
    """Give a tokenizer without a padding token that of its model; return what to report, "" if nothing.

    Raises UsageError where neither has one, or where the model counts positions by another one than the tokenizer's.
    """
    wanted = getattr(config, "pad_token_id", None)
    if tokenizer.pad_token_id is None:
        if wanted is None or not 0 <= wanted < len(tokenizer):
            raise UsageError(
                where,
                "its tokenizer has no padding token",
                legal="a tokenizer with one",
                todo='name one in tokenizer_config.json, "pad_token": ..., for a decoder the token that ends its texts',
            )
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(wanted)
        return f"its tokenizer names no padding token: that of the model is taken, {tokenizer.pad_token}"
    if body.counts_padding and tokenizer.pad_token_id != wanted:
        raise UsageError(
            where,
            f"its tokenizer pads with token {tokenizer.pad_token_id} ({tokenizer.pad_token}), the model with token "
            f"{wanted}, and counts positions by it",
            legal="the tokenizer the model was trained with",
            todo="check the folder's tokenizer files",
        )
    if wanted is not None and tokenizer.pad_token_id != wanted:
        return f"its padding token is that of its tokenizer, {tokenizer.pad_token_id}; config.json says {wanted}"
    return ""


def _fit_side(tokenizer: Any, body: Body, config: Any) -> str:
    """Let short rows be filled behind where the model counts positions, or reads its first token, from the front."""
    from_the_front = body.num_positions is not None or config.model_type in FAMILIES
    if tokenizer.padding_side == "right" or not from_the_front:
        return ""
    _set(tokenizer, "padding_side", "right")
    return "its tokenizer fills short rows in front, where the model reads their first token: they are filled behind"


def _fit_segments(tokenizer: Any, body: Body, where: str) -> str:
    """Leave out segment ids that the model does not know; return what to report, "" if nothing.

    Raises UsageError for a tokenizer with more segments than the model.
    """
    if TYPES not in tokenizer.model_input_names:
        return ""
    if body.num_segments in (0, 1):
        _set(tokenizer, "model_input_names", [each for each in tokenizer.model_input_names if each != TYPES])
        has = "one segment" if body.num_segments else "no segments"
        return f"the model has {has}: the tokenizer's segment ids ({TYPES}) are left out"
    largest = max(*tokenizer("a", "a", return_token_type_ids=True)[TYPES], tokenizer.pad_token_type_id)
    if body.num_segments is not None and largest >= body.num_segments:
        raise UsageError(
            where,
            f"its tokenizer gives segment {largest}, the model has {body.num_segments} segments, from 0",
            legal="the tokenizer the model was trained with",
            todo="check the folder's tokenizer files",
        )
    return ""


def _set(tokenizer: Any, name: str, value: Any) -> None:
    """Set what a tokenizer saves with itself: only what it was made with is saved."""
    setattr(tokenizer, name, value)
    tokenizer.init_kwargs[name] = value
