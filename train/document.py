"""docs/from-huggingface.md, made of the table of flags: ``python -m ringtune.train.document > FILE``."""

from __future__ import annotations

from collections.abc import Mapping

from ringtune.train.config import FIELDS
from ringtune.train.foreign_flag import OFF, Fate, Flag
from ringtune.train.huggingface import DEFAULTS, TRAIN


def markdown() -> str:
    """Return docs/from-huggingface.md. **Pure.**"""
    named = {fate: {name: flag for name, flag in TRAIN.items() if flag.fate is fate} for fate in Fate}
    lines = [_HEAD, "## Taken, with the same meaning\n", "| flag | what to know | not taken |", "| --- | --- | --- |"]
    for names, flag in _joined(named[Fate.TAKEN]):
        values = "; ".join(f"{value}: {why}" for value, why in flag.refused.items())
        lines.append(f"| {names} | {flag.reason} | {values} |")
    lines += ["\nUnder another name: " + ", ".join(f"`{a}` is `{b.instead}`" for a, b in named[Fate.RENAMED].items())]
    lines += [
        "\n## Defaults that are not transformers'\n",
        "| flag | theirs | ours | why |",
        "| --- | --- | --- | --- |",
    ]
    for name, (theirs, why) in DEFAULTS.items():
        lines.append(f"| `{name}` | {theirs} | {str(FIELDS[name].default).lower()} | {why} |")
    lines += ["\n## Accepted without effect, with one line\n", "| flag | why |", "| --- | --- |"]
    lines += [f"| {names} | {flag.reason} |" for names, flag in _joined(named[Fate.UNUSED])]
    lines += ["\n## Refused\n", "| flag | why | instead | values that pass |", "| --- | --- | --- | --- |"]
    for names, flag in _joined(named[Fate.REFUSED]):
        same = [f"`{value}`" for value in flag.same if value.strip() and value not in OFF]
        same += [f"that of `{flag.same_as}`"] * bool(flag.same_as)
        lines.append(f"| {names} | {flag.reason} | {flag.instead} | {', '.join(same)} |")
    return "\n".join(lines) + "\n"


def _joined(flags: Mapping[str, Flag]) -> list[tuple[str, Flag]]:
    """Return the flags with the names of those that are decided alike together. **Pure.**"""
    names: dict[int, list[str]] = {}
    for name, flag in flags.items():
        names.setdefault(id(flag), []).append(f"`{name}`")
    return [(", ".join(several), flags[several[0].strip("`")]) for several in names.values()]


_HEAD = """\
# Flags of Hugging Face

What becomes of the flags of `run_glue.py`, `run_classification.py`, `run_ner.py`, `run_qa.py`, `run_mlm.py`,
`run_swag.py` and `TrainingArguments` in `ringtune-train`. Made of the tables in `train/huggingface.py` and
`train/huggingface_scripts.py` by `python -m ringtune.train.document > docs/from-huggingface.md`.

Names may have hyphens (`--max-steps`), switches stand alone, with a value, or with `no_` (`--fp16`, `--fp16 true`,
`--no_fp16`), values of a choice have any case. Keys of a file (`--config FILE.yaml`, `--config FILE.json`, or
`FILE.json` as the first argument) are treated as flags are; flags win over files. What is refused or without effect
passes without a word where its value asks for nothing: `null`, `none`, `no`, `false`, or empty.
"""


if __name__ == "__main__":
    print(markdown(), end="")
