"""What is filled into a text; and what --task masked_lm and its flags refuse, before and behind the first row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from families import write_sentencepiece
from ringtune.train import config, measures
from ringtune.train.contract import UsageError
from ringtune.train.direction import LOWER_IS_BETTER
from ringtune.train.predict import predict
from ringtune.train.scores import deciding_score
from ringtune.train.task.mask_filling import MaskFilling, fill
from ringtune.train.task.masked_lm import MaskedLM
from ringtune.train.task.masking import Masking, Vocabulary
from ringtune.train.task.text_pieces import units_of
from tiny import make_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model of masked tokens, as another program leaves it."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    path = tmp_path_factory.mktemp("masked")
    tokenizer = make_tokenizer(path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    settings = {**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "initializer_range": 0.4}
    BertForMaskedLM(BertConfig(**settings)).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("a [MASK] film", ["good"], "a good film"),
        ("[MASK] film [MASK]", ["the", "."], "the film ."),
        ("a film[MASK]", [" is"], "a filmis"),
        ("a film [MASK] good", ["##s"], "a films good"),
        ("[MASK] good", ["##s"], "##s good"),
        ("a [MASK]", ["##"], "a ##"),
        ("a [MASK] film", [], None),
        ("no mask", [], "no mask"),
    ],
)
def test_tokens_take_the_place_of_masks(text, tokens, expected):
    assert fill(text, "[MASK]", tokens) == expected


def test_a_long_text_is_read_in_windows_and_each_mask_filled_once(folder):
    tokenizer = make_tokenizer(folder)
    task = MaskFilling(None, Masking(), tokenizer)
    words = np.array(["film"] * 60, dtype=object)
    words[[0, 7, 11, 30, 59]] = "[MASK]"
    texts = [" ".join(words), "film", " ".join(["film"] * 40 + ["[MASK]"])]
    features = task.encode(pa.RecordBatch.from_pydict({"text/0": texts}), tokenizer, 16)
    assert features.lengths.max() == 16 and features.row_of.tolist()[-1] == 2
    assert np.bincount(features.row_of, features.num_terms).tolist() == [5, 0, 1]
    for number in range(features.num_features):
        ids, units = units_of(features, number)
        assert set(ids[units > 0].tolist()) == {tokenizer.mask_token_id}
    inside = [units_of(features, n)[1] for n in range(features.num_features)]
    assert all(each[:2].sum() + each[-2:].sum() <= 1 for each in inside)  # away from a cut


def test_rows_of_any_model_of_masked_tokens_are_filled_and_those_without_have_an_error(folder):
    from transformers import pipeline

    texts = ["a [MASK] film", "a film", "[MASK] is [MASK]", "film " * 40 + "[MASK]"]
    best = list(predict(folder, texts, top_k=2, max_seq_length=64))
    assert [set(row) for row in best] == [{"filled", "text_filled"}, {"error"}, *[{"filled", "text_filled"}] * 2]
    assert best[1]["error"] == "there is no [MASK] in column 'text'"
    expected = pipeline("fill-mask", str(folder), top_k=2)(texts[0])
    assert [each["token"] for each in best[0]["filled"][0]] == [each["token_str"] for each in expected]
    found = list(predict(folder, texts, max_seq_length=64))
    for row, other in zip(found, best, strict=True):
        if "error" not in row:
            assert row["tokens"] == [each[0]["token"] for each in other["filled"]]
            assert row["text_filled"] == other["text_filled"] and "[MASK]" not in row["text_filled"]
    assert predict(folder, ["a film"]) is not None and [set(row) for row in predict(folder, ["a film"])] == [{"error"}]
    with pytest.raises(UsageError, match=r"there is no \[MASK\]"):
        list(predict(folder, texts, on_error="stop"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"label_column_name": "label"}, "masks are filled, and not scored"),
        ({"slice_by": "label"}, "masks are filled, and not scored"),
        ({"text_column_names": "a,b"}, "a, b are a pair of texts"),
        ({"threshold": 0.5}, "it is for rows that may have several labels"),
    ],
)
def test_what_masks_do_not_have_is_refused_in_prediction(folder, tmp_path, flags, words):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"a": "a [MASK]", "b": "b", "label": "x"}\n')
    with pytest.raises(UsageError, match=words):
        list(predict(folder, rows, **{"text_column_names": "a", **flags}))


@pytest.mark.parametrize("family", ["xlm-roberta", "albert", "deberta-v2"])
def test_models_of_other_tokenizers_fill_in_what_the_pipeline_does(tmp_path, family):
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, pipeline

    write_sentencepiece(tmp_path, family)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    torch.manual_seed(0)
    settings = AutoConfig.from_pretrained(tmp_path, initializer_range=0.4)
    AutoModelForMaskedLM.from_config(settings).save_pretrained(tmp_path)
    texts = [f"film good {tokenizer.mask_token} plot", f"the {tokenizer.mask_token}"]
    expected = pipeline("fill-mask", str(tmp_path), top_k=4)(texts)
    for row, best in zip(predict(tmp_path, texts, top_k=4, max_seq_length=32), expected, strict=True):
        (mine,) = row["filled"]
        assert [each["token"] for each in mine] == [each["token_str"] for each in best]
        assert [each["probability"] for each in mine] == pytest.approx([each["score"] for each in best], rel=1e-3)
        assert row["text_filled"].split()[-1 if "the" in row["text_filled"] else 0]
    masking = Masking(0.5, True, True, Vocabulary.of(tokenizer))
    rows = pa.RecordBatch.from_pydict({"text/0": ["film zqxw plot"]})
    ids, units = units_of(MaskedLM(None, masking).encode(rows, tokenizer, 32), 0)
    pieces = tokenizer.convert_ids_to_tokens(ids.tolist())
    assert pieces[0] in ("<s>", "[CLS]") and units[0] == units[-1] == 0
    known = [(piece, unit) for piece, unit in zip(pieces, units.tolist(), strict=True) if unit]
    assert known and all((unit == 1) == piece.startswith("\u2581") for piece, unit in known)


def test_the_lower_loss_or_perplexity_is_the_better_one():
    task = MaskedLM(None, Masking())
    assert deciding_score(task, None, None) == "loss" and deciding_score(task, None, "eval_perplexity") == "perplexity"
    assert {"loss", "perplexity"} <= set(LOWER_IS_BETTER) and "accuracy" not in LOWER_IS_BETTER


def test_scores_by_name_are_refused(folder):
    for task in (MaskedLM(None, Masking()), MaskFilling(None, Masking(), make_tokenizer(folder))):
        assert measures.choose(None, task) == {}
        with pytest.raises(UsageError, match="scores by name are of one answer for each row"):
            measures.choose("f1_macro", task)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--mlm_probability 0.2", "no tokens are masked"),
        ("--whole_word_mask true", "no tokens are masked"),
        ("--line_by_line true", "no tokens are masked"),
        ("--task masked_lm --mlm_probability 1", "1.0 is out of range"),
        ("--task masked_lm --mlm_probability 0", "0.0 is out of range"),
        ("--task masked_lm --regression true", "learns from texts alone"),
        ("--task masked_lm --label_separator ;", "learns from texts alone"),
        ("--task masked_lm --threshold 0.5", "learns from texts alone"),
        ("--task masked_lm --do_predict true --test_file b", "ringtune-predict fills masks in"),
        ("--task masked_lm --task_name cola", "learns from texts alone"),
        ("--task masked_lm --slice_by a", "with --line_by_line true"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_a_file_is_read(flags, words):
    with pytest.raises(UsageError) as error:
        config.parse(["--model_name_or_path", "m", "--train_file", "a.txt", *flags.split()])
    assert words in str(error.value)
