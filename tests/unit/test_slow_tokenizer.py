"""The digest of a tokenizer without tokenizer.json says by what rules it cuts text, and not where it lies."""

from __future__ import annotations

import shutil

import pytest
import tiny
import torch
from ringtune.train import model, resumed, tokens
from ringtune.train.checkpoint import Best, RunState
from ringtune.train.contract import UsageError
from transformers import BertJapaneseTokenizer, BertweetTokenizer, PhobertTokenizer

MERGES = ("l o 10", "lo w</w> 9", "e r</w> 8")


def japanese(folder, **settings):
    """Return a tokenizer whose cuts are decided by its settings."""
    folder.mkdir(exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"lower", "low", "##er"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n")
    return BertJapaneseTokenizer(str(folder / "vocab.txt"), **{"word_tokenizer_type": "basic", **settings})


def pairs(kind, folder, *merges, **settings):
    """Return a tokenizer whose cuts are decided by its merges, too."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{each} 9\n" for each in ("l@@", "o@@", "w", "lo@@", "low", "e@@", "r")))
    (folder / "bpe.codes").write_text("".join(f"{each}\n" for each in merges))
    return kind(str(folder / "vocab.txt"), str(folder / "bpe.codes"), **settings)


@pytest.mark.parametrize("of_settings", [True, False])
def test_a_copy_and_what_is_saved_and_loaded_again_have_the_same_digest(tmp_path, of_settings):
    if of_settings:
        made = japanese(tmp_path / "made", do_lower_case=True, subword_tokenizer_type="character")
    else:
        made = pairs(PhobertTokenizer, tmp_path / "made", *MERGES, extra_special_tokens=["<x>"])
    made.save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    loaded = type(made).from_pretrained(tmp_path / "one")
    loaded.save_pretrained(tmp_path / "two")
    several = [made, loaded, *(type(made).from_pretrained(tmp_path / name) for name in ("copy", "two"))]
    assert len(set(map(tokens.tokenizer_digest, several))) == 1


def test_another_rule_gives_another_digest(tmp_path):
    several = [
        japanese(tmp_path / "made"),
        japanese(tmp_path / "made", do_lower_case=True),
        japanese(tmp_path / "made", subword_tokenizer_type="character"),
        japanese(tmp_path / "made", mecab_kwargs={"mecab_dic": "ipadic"}),
        japanese(tmp_path / "made", never_split=["low"]),
        pairs(BertweetTokenizer, tmp_path / "pairs", *MERGES),
        pairs(BertweetTokenizer, tmp_path / "pairs", *MERGES, normalization=True),
        pairs(BertweetTokenizer, tmp_path / "pairs", *MERGES[::-1]),
        pairs(BertweetTokenizer, tmp_path / "pairs", *MERGES[:1]),
    ]
    assert several[5].tokenize("lower low") != several[8].tokenize("lower low")
    assert len(set(map(tokens.tokenizer_digest, several))) == len(several)


def test_a_tokenizer_that_transformers_saves_otherwise_is_saved_as_it_was_loaded(tmp_path, monkeypatch):
    made = pairs(BertweetTokenizer, tmp_path / "made", *MERGES, normalization=True)
    (tmp_path / "saved").mkdir()
    monkeypatch.setattr(model, "config_files", lambda network: {"config.json": b"{}"})
    for name, content in model.pretrained_files(torch.nn.Linear(1, 1), made).items():
        (tmp_path / "saved" / name).write_bytes(content)
    loaded = BertweetTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded.tokenize("lower low") == made.tokenize("lower low") == ["lo@@", "w@@", "er", "low"]
    assert tokens.tokenizer_digest(loaded) == tokens.tokenizer_digest(made)
    for each in (tmp_path / "made").iterdir():
        each.unlink()
    with pytest.raises(UsageError, match="its BertweetTokenizer cuts text otherwise when it is saved and loaded again"):
        model.pretrained_files(torch.nn.Linear(1, 1), made)


def state(digest):
    return RunState(1, 9, 0, 12, 2, Best(), {}, {}, "rows", digest, {})


def test_a_run_of_an_earlier_version_goes_on_with_the_digest_that_it_has(tmp_path):
    slow, fast = japanese(tmp_path / "slow"), tiny.make_tokenizer(tmp_path / "fast")
    before = tokens._digest(slow, has_rules=False)
    assert before == "64418012d24a68488eb71546c7d0fc1b8d7af3e95f47400a7178e15be4cb151c"
    for known in (before, tokens.tokenizer_digest(slow)):
        resumed.refuse_other_data(state(known), "rows", slow, "c")
    with pytest.raises(UsageError, match="the tokenizer is not what it was"):
        resumed.refuse_other_data(
            state(tokens.tokenizer_digest(slow)), "rows", japanese(tmp_path / "slow", do_lower_case=True), "c"
        )
    with pytest.raises(UsageError, match="the data is not what it was"):
        resumed.refuse_other_data(state(before), "others", slow, "c")
    assert tokens.tokenizer_digest(fast) == tokens._digest(fast, has_rules=False)
