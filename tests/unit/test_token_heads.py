"""Heads that read every token: packed rows, windows and batches change nothing, and pipelines say the same."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import tagged
import torch
from families import PIECES, write_sentencepiece
from ringtune.train import model as models
from ringtune.train.attention import PACKED_TYPES, can_pack, packer_of, take_packed_rows
from ringtune.train.batches import on_device
from ringtune.train.contract import UsageError
from ringtune.train.evaluate import outputs_of
from ringtune.train.predict import predict
from ringtune.train.step import Precision
from ringtune.train.task.pieces import NO_TAG, NO_TERM
from ringtune.train.task.token_classification import TokenClassification
from ringtune.train.tokens import collate, term_places
from test_first_token import SIZES
from tiny import make_tokenizer
from transformers import AutoConfig, AutoModelForTokenClassification

CPU = torch.device("cpu")
CLASSES = ("O", "B-MOOD", "I-MOOD", "B-THING", "I-THING")
TASK = TokenClassification(None, CLASSES, "iob2")


def tagger(family: str = "bert", **more: object) -> torch.nn.Module:
    """Return a tagger whose logits depend visibly on every token and every position."""
    torch.manual_seed(2)
    settings = {**SIZES, **TASK.model_settings(), "initializer_range": 0.4, "vocab_size": 80, "pad_token_id": 0, **more}
    model = AutoModelForTokenClassification.from_config(AutoConfig.for_model(family, **settings)).eval()
    if family == "modernbert":
        for each in model.parameters():
            torch.nn.init.normal_(each, std=0.2)
    return model


def batch_of(rows, *, tagged_rows: bool = True) -> pa.RecordBatch:
    """Return rows of words as the reader gives them."""
    columns = {"text/0": [" ".join(words) for words, _ in rows]}
    columns["words"] = [
        [at for start, word in zip(starts_of(words), words, strict=True) for at in (start, start + len(word))]
        for words, _ in rows
    ]
    if tagged_rows:
        from ringtune.train.task import tags

        columns["label"] = [tags.written(found, len(words)) for words, found in rows]
    return pa.RecordBatch.from_pydict(columns)


def starts_of(words: list[str]) -> list[int]:
    return np.cumsum([0, *(len(word) + 1 for word in words[:-1])]).tolist()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def features(tokenizer):
    return TASK.encode(batch_of(list(tagged.rows(12, 3))), tokenizer, 24)


def outcome(model, features, batches: list[list[int]]) -> dict[str, torch.Tensor]:
    """Return the logits of all terms, in their order, their losses, and the gradients of the sum of these."""
    model.zero_grad()
    model.double()
    packer = packer_of(model, CPU, None)
    logits = torch.zeros(int(features.num_terms.sum()), TASK.width, dtype=torch.float64)
    total = torch.zeros(())
    for chosen in batches:
        batch = on_device(TASK.collate(features, chosen, seed=0), packer, CPU)
        output = model(**TASK.inputs(batch))
        logits[term_places(features.num_terms, np.array(chosen))] = TASK.outputs(output, batch).detach().double()
        total = total + TASK.losses(output, batch, 0.1).sum()
    total.backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"logits": logits, "loss": total.detach(), **gradients}


@pytest.mark.parametrize("family", [*PACKED_TYPES, "deberta-v2", "mpnet"])
def test_a_row_gives_the_same_tags_alone_and_beside_others(family, features):
    """Packed where the family is, padded where it is not: logits, losses and gradients."""
    more = {"local_attention": 6} if family == "modernbert" else {}
    alone = outcome(tagger(family, **more), features, [[row] for row in range(features.num_features)])
    model = tagger(family, **more)
    if family in PACKED_TYPES:
        assert can_pack(model, reads_first_token=False)
        take_packed_rows(model)
    together = outcome(model, features, [[5, 1, 0], list(range(features.num_features - 1, 5, -1)), [2, 4, 3]])
    assert alone["logits"].std(dim=0).min() > 1e-3
    torch.testing.assert_close(together, alone, rtol=2e-5, atol=2e-5)  # losses are fp32


def test_copies_of_the_last_token_are_no_terms(features):
    """On a CPU in bf16 a packed batch is filled up with copies of its last token."""
    model = tagger()
    take_packed_rows(model)
    precision = Precision(CPU, torch.bfloat16)
    for chosen in ([0], [1, 2], [3, 4, 5]):
        found = outputs_of(model, TASK, features, np.array(chosen), precision)
        assert len(found) == features.num_terms[chosen].sum()
    labels = torch.full((1, 8), 1)
    packing = type("Packing", (), {"num_tokens": 5})
    assert (TASK._terms({"labels": labels, "packing": packing}) != NO_TERM).sum() == 5


def test_padding_and_pieces_behind_the_first_have_no_loss(features):
    batch = collate(features, [0, 1], fill={"labels": NO_TERM})
    assert (batch["labels"][batch["attention_mask"] == 0] == NO_TERM).all()
    output = type("Output", (), {"logits": torch.randn(*batch["labels"].shape, TASK.width)})
    losses = TASK.losses(output, batch, 0.0)
    assert torch.count_nonzero(losses) == features.num_terms[:2].sum()


def byte_level() -> object:
    """Return a byte-level BPE tokenizer, as RoBERTa's: a piece has the blank before it, or a part of a character."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    found = ByteLevelBPETokenizer()
    found.train_from_iterator([" ".join(words) for words, _ in tagged.rows(50, 1)], 300, show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=found._tokenizer, pad_token="Ā")


@pytest.mark.parametrize("family", [*PIECES, "byte level"])
def test_every_word_has_its_first_piece_in_any_kind_of_tokenizer(tmp_path, family):
    from transformers import AutoTokenizer

    if family == "byte level":
        own = byte_level()
    else:
        write_sentencepiece(tmp_path, family)
        own = AutoTokenizer.from_pretrained(tmp_path)
    rows = [([*words, "naïve", "film.", "北京"], found) for words, found in tagged.rows(9, 1)]
    found = TASK.encode(batch_of(rows), own, 24)
    total = sum(word != "\u200d" for words, _ in rows for word in words)
    assert found.num_terms.sum() in (total, total + 2)  # of a word of no width there may be a piece, or none
    is_term = found.token_columns["labels"] != NO_TERM
    first = {}
    for at, row, word in zip(
        np.flatnonzero(is_term),
        np.repeat(found.row_of, found.num_terms),
        found.token_columns["word"][is_term],
        strict=True,
    ):
        shown = own.decode([int(found.token_columns["input_ids"][at])]).strip().lstrip("▁")
        if (text := rows[row][0][word]).isascii() and shown.isascii() and "unk" not in shown.lower():
            first[text] = text.startswith(shown)
    assert len(first) > 10 and all(first.values())


def test_a_tokenizer_that_does_not_say_where_its_pieces_stand_is_refused():
    slow = type("Slow", (), {"is_fast": False})()
    with pytest.raises(UsageError, match="does not say which characters a piece stands for; a model with a fast"):
        TASK.encode(batch_of([(["film"], [])]), slow, 24)


def test_rows_with_an_unknown_tag_or_none_have_terms_without_a_tag(tokenizer):
    rows = [(["the", "film"], [("THING", 0, 2)]), (["film"], [("OTHER", 0, 1)])]
    found = TASK.encode(batch_of(rows), tokenizer, 24)
    assert TASK.targets(found)[:, 0].tolist() == [3, 4, NO_TAG]
    assert TASK.has_label(TASK.targets(found)).tolist() == [True, True, False]
    assert TASK.targets(TASK.encode(batch_of(rows, tagged_rows=False), tokenizer, 24)) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A tagger as others leave it, without a task.json."""
    folder = tmp_path_factory.mktemp("tagger")
    model = tagger(max_position_embeddings=64)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tagger_of_others_predicts_what_their_pipeline_does(folder):
    from transformers import pipeline

    several = [" ".join(words) for words, _ in tagged.rows(40, 5) if "\u200d" not in words and len(words) < 40]
    theirs = pipeline("token-classification", str(folder), aggregation_strategy="first")(several)
    ours = [row["entities"] for row in predict(str(folder), several, max_seq_length=64)]
    assert sum(map(len, ours)) > 50
    for mine, other in zip(ours, theirs, strict=True):
        assert [(each["start"], each["end"], each["label"]) for each in mine] == [
            (each["start"], each["end"], each["entity_group"]) for each in other
        ]


def test_a_model_whose_classes_are_no_tags_is_refused(tmp_path, tokenizer):
    tagger(id2label={0: "NOUN", 1: "VERB"}, num_labels=2).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="its classes are no tags; O, and tags such as B-LOC"):
        models.load_trained(str(tmp_path))


def test_lists_of_words_and_rows_with_an_error_in_python(folder, tmp_path):
    """A row of words gives tags; one that cannot be used gives an error in its place."""
    from ringtune.train import task as tasks
    from ringtune.train.columns import Columns

    trained = TokenClassification(Columns(("tokens",), "ner_tags", form="words"), CLASSES, "bioes")
    own = tmp_path / "own"
    own.mkdir()
    for each in folder.iterdir():
        (own / each.name).write_bytes(each.read_bytes())
    (own / "task.json").write_bytes(tasks.to_bytes(trained, 24))
    assert tasks.read(own) == (trained, 24)
    long = ["film"] * 90
    found = list(predict(str(own), [["the", "film", "\u200d"], long, [], "plain text"]))
    assert [len(row.get("tags") or ()) for row in found] == [3, 90, 0, 0]
    assert found[0]["tags"][2] == "O" and {tag[0] for tag in found[1]["tags"]} <= set("OBIES")
    assert "the list of words in column 'tokens' is empty" in found[2]["error"] and "error" not in found[1]
    assert found[3]["error"]
    text = list(predict(str(own), [{"text": "the film"}, {"text": None}], text_column_names="text"))
    assert "entities" in text[0] and "there is no text" in text[1]["error"]
    assert json.loads(json.dumps(text[0])) == text[0]
