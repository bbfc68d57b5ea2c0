"""Tags of words and the entities they mark: the one place with these rules.

A tag is ``O``, or a letter, a hyphen and a type: ``B-LOC``. ``B``: an entity's first word, ``I``: another one of it,
``E``: its last, ``S``: its only one. The schemes differ in which letters an entity has:

- IOB2: ``B`` first, then ``I``. A model is trained on these.
- IOB1: ``I`` throughout; ``B`` only for the first word of an entity behind another one of its type.
- BIOES (IOBES): ``B``, ``I``, ``E``; ``S`` for an entity of one word.

All are read by the rule of CoNLL's scoring script (Tjong Kim Sang and Buchholz 2000), also sequences that keep to no
scheme: an entity begins at ``B`` and ``S``, behind ``O``, ``E`` and ``S``, and where the type changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa
from ringtune.train.contract import UsageError
from ringtune.train.json_rows import shown

OUTSIDE = "O"
IOB1, IOB2, BIOES = "iob1", "iob2", "bioes"
_TAG = re.compile(r"([BIES])-(\S.*)", re.DOTALL)
LONGEST = 200  # characters of a type's name

Entity = tuple[str, int, int]
"""Type, first word, and the word behind the last."""


def is_tag(text: str) -> bool:
    """Return whether a text is a tag. **Pure.**"""
    return text == OUTSIDE or (_TAG.fullmatch(text) is not None and len(text) <= LONGEST)


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of a sequence of tags, in order. **Pure.**"""
    found: list[Entity] = []
    letter, kind, start = OUTSIDE, "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        next_letter, next_kind = tag[0], tag[2:]
        begins = next_letter in "BS" or letter in "OES" or next_kind != kind
        if letter != OUTSIDE and (next_letter == OUTSIDE or begins):
            found.append((kind, start, place))
        if next_letter != OUTSIDE and begins:
            start = place
        letter, kind = next_letter, next_kind
    return found


def written(found: Iterable[Entity], num_words: int, scheme: str = IOB2) -> list[str]:
    """Return the tags of a row of words with these entities, which do not overlap. **Pure.**"""
    tags = [OUTSIDE] * num_words
    last_end, last_kind = -1, ""
    for kind, start, stop in found:
        first = "I" if scheme == IOB1 and not (last_end == start and last_kind == kind) else "B"
        letters = [first] + ["I"] * (stop - start - 1)
        if scheme == BIOES:
            letters[-1] = "E" if stop - start > 1 else "S"
        tags[start:stop] = [f"{letter}-{kind}" for letter in letters]
        last_end, last_kind = stop, kind
    return tags


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Return tags of any scheme as IOB2. **Pure.**"""
    return written(entities(tags), len(tags))


class TagColumn:
    """The tags of the training rows, added batch by batch."""

    def __init__(self, name: str, *, scheme: str | None, declared: tuple[str, ...] = ()) -> None:
        """scheme: as the user asked; None: find out. declared: the tags that a data set declares, in its order."""
        self.name, self.asked, self.declared = name, scheme, declared
        self.types: dict[str, None] = {}
        self.letters: set[str] = set()
        self.num_broken = dict.fromkeys((IOB1, IOB2), 0)  # entities that begin as the scheme does not have it
        for tag in declared:
            self._note_tag(tag, f"the classes of column {name[:40]!r}")

    def add(self, labels: pa.Array, places: Iterable[str]) -> None:
        """Take note of tags, a list of strings a row. places: where each row is. Raises UsageError for other texts."""
        for tags, place in zip(labels.to_pylist(), places, strict=True):
            if tags is None:
                raise UsageError(
                    place, f"there are no tags in column {self.name[:40]!r}", legal="a tag for each word in every row"
                )
            for tag in dict.fromkeys(tags):
                self._note_tag(tag, place)
                self.letters.add(tag[0])
            ends: dict[int, str] = {}
            for kind, start, stop in entities(tags):
                follows_like = ends.get(start) == kind
                ends[stop] = kind
                self.num_broken[IOB2] += tags[start][0] != "B"
                self.num_broken[IOB1] += (tags[start][0] == "B") != follows_like

    def _note_tag(self, tag: str, place: str) -> None:
        if not is_tag(tag):
            raise UsageError(
                place,
                f"the tag {shown(tag)} in column {self.name[:40]!r} is none",
                legal="O, or B-, I-, E- or S- and the type of an entity, such as B-LOC",
                todo="numbers need names: write the tags themselves, or read a data set that declares its classes"
                if tag.isdecimal()
                else "--label_column_name names another column",
            )
        if tag != OUTSIDE:
            self.types.setdefault(tag[2:])

    @property
    def scheme(self) -> str:
        """The scheme of the tags. Any ``E`` or ``S`` makes it BIOES; sequences that are whole IOB1, IOB1; else IOB2."""
        if self.asked:
            return self.asked
        if self.letters & set("ES") or any(tag[0] in "ES" for tag in self.declared):
            return BIOES
        return IOB1 if self.num_broken[IOB2] and not self.num_broken[IOB1] else IOB2

    def classes(self, where: str) -> tuple[str, ...]:
        """Return the tags that a model learns, IOB2: those declared in their order, or by the alphabet, O first.

        Raises UsageError if there are no entities.
        """
        if not self.types:
            raise UsageError(where, f"all tags in column {self.name[:40]!r} are O", legal="words of entities")
        names = list(self.types) if self.declared else sorted(self.types)
        closed = (OUTSIDE, *(f"{letter}-{name}" for name in names for letter in "BI"))
        return self.declared if set(self.declared) == set(closed) else closed

    def note(self) -> str:
        """Return how the tags were read where they keep to no scheme, for the user; "" elsewhere."""
        broken = self.num_broken.get(self.scheme, 0)
        if not broken:
            return ""
        return (
            f"{broken} entities do not begin as {self.scheme.upper()} has it: they are read as CoNLL's scoring script "
            "reads them (--tag_scheme)"
        )
