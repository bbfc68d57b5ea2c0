"""Which tokens are masked, and by what: a function of the seed and the number of the feature alone.

How many are masked of a feature is known before they are drawn: a step's loss is divided by that number over all ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from ringtune.train.contract import UsageError
from ringtune.train.mask_settings import PROBABILITY

#: Of each token: never masked, the first of what is masked as a whole, or one behind it.
NEVER, BEGINS, GOES_ON = 0, 1, 2
#: Of masked tokens, the share that becomes the mask token, and that with those that become any token; the rest stays as
#: it is (Devlin et al. 2019, appendix A.1).
MASK_SHARE, CHANGED_SHARE = 0.8, 0.9


@dataclass(frozen=True)
class Vocabulary:
    """What of a tokenizer the masks are made of."""

    mask: int  # the mask token
    num_tokens: int
    special: tuple[int, ...]  # tokens that are no text, and the unknown one: ascending

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """Return that of a tokenizer. Raises UsageError for one without a mask token."""
        if tokenizer.mask_token_id is None:
            raise UsageError(
                "--model_name_or_path",
                "its tokenizer has no mask token",
                legal="a model that was trained on masked tokens, such as BERT",
            )
        special = sorted({int(each) for each in tokenizer.all_special_ids})
        return cls(int(tokenizer.mask_token_id), len(tokenizer), tuple(special))

    def ordinary(self, draw: np.random.Generator, count: int) -> np.ndarray:
        """Return tokens that are text, each equally likely, int64 [count]."""
        special = np.array([each for each in self.special if each < self.num_tokens], dtype=np.int64)
        found = draw.integers(self.num_tokens - len(special), size=count)
        # The k-th ordinary token is k and the number of special ones up to it.
        return found + np.searchsorted(special - np.arange(len(special)), found, side="right")


@dataclass(frozen=True)
class Masking:
    """How the texts of a run are masked."""

    probability: float = PROBABILITY  # share of the tokens that could be masked
    whole_words: bool = False
    line_by_line: bool = False  # each text by itself, not joined with others
    vocabulary: Vocabulary | None = None  # None: of a model whose training is not known

    def note(self) -> str:
        """Return what is masked of what, in one line."""
        rows = "each text is a row" if self.line_by_line else "texts are joined and cut into rows of --max_seq_length"
        unit = "whole words" if self.whole_words else "single tokens (--whole_word_mask)"
        return f"{rows}; {self.probability:.4g} of the tokens of a row are masked, {unit}"

    def count(self, num_candidates: np.ndarray) -> np.ndarray:
        """Return how many tokens of each feature are masked, int32: at least one, if there is one. **Pure.**"""
        wanted = np.maximum(1, np.rint(self.probability * num_candidates))
        return np.minimum(wanted, num_candidates).astype(np.int32)

    def draw(self, ids: np.ndarray, units: np.ndarray, seed: int, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which tokens of a feature are masked, ascending, and what stands there instead, int64 [count] each.

        ids, units: [T], tokens, and for each NEVER, BEGINS or GOES_ON. **Pure.**
        """
        assert self.vocabulary is not None
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, feature], dtype=np.uint64)))
        count = int(self.count(np.array(np.count_nonzero(units))))
        places = choose(units, count, generator)
        others = self.vocabulary.ordinary(generator, count)
        share = generator.random(count)
        changed = np.where(share < MASK_SHARE, self.vocabulary.mask, others)
        return places, np.where(share < CHANGED_SHARE, changed, ids[places])

    def to_json(self) -> dict[str, Any]:
        """Return it for task.json."""
        known = self.vocabulary
        vocabulary = known and {"mask": known.mask, "num_tokens": known.num_tokens, "special": list(known.special)}
        return {
            "mlm_probability": self.probability,
            "whole_word_mask": self.whole_words,
            "line_by_line": self.line_by_line,
            "vocabulary": vocabulary,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what `to_json` gave."""
        known = content["vocabulary"]
        vocabulary = known and Vocabulary(
            int(known["mask"]), int(known["num_tokens"]), tuple(map(int, known["special"]))
        )
        return cls(
            float(content["mlm_probability"]),
            bool(content["whole_word_mask"]),
            bool(content["line_by_line"]),
            vocabulary,
        )


def choose(units: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Return ``count`` tokens of a feature, ascending, int64. units: [T], for each NEVER, BEGINS or GOES_ON.

    Words are taken in a drawn order, each that still fits, as BERT's own program does it. If no word fits what is left,
    it is filled by the first tokens of the first word that did not fit: so the number is always ``count``.
    """
    candidates = np.flatnonzero(units)
    before = np.concatenate([[NEVER], units[:-1]])
    # A word that the end of the row before has cut goes on at the start of this one.
    begins = (units == BEGINS) | ((units == GOES_ON) & (before == NEVER))
    starts = np.flatnonzero(begins[candidates])
    order = draw.permutation(len(starts))
    if len(starts) == len(candidates):
        return np.sort(candidates[order[:count]])
    sizes = np.diff(np.concatenate([starts, [len(candidates)]]))
    taken, left, too_long = [], count, -1
    for word in order.tolist():
        if left == 0:
            break
        if sizes[word] <= left:
            taken.append(candidates[starts[word] : starts[word] + sizes[word]])
            left -= int(sizes[word])
        elif too_long < 0:
            too_long = word
    if left:
        taken.append(candidates[starts[too_long] : starts[too_long] + left])
    return np.sort(np.concatenate([candidates[:0], *taken]))
