"""A tokenizer of any family works with the model it belongs to; what does not fit is refused or named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from conftest import Done, flag_words, ranks
from families import PIECES, write_model, write_sentencepiece
from ringtune.train import model
from ringtune.train.columns import Columns
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.predict import predict
from ringtune.train.task.classification import Classification
from ringtune.train.tokenizer import RowLimit, load_tokenizer, open_tokenizer
from ringtune.train.tokens import encode
from tiny import WORDS, make_tokenizer, write_rows
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def train_two_steps(folder: Path) -> Done:
    """Train the model of a folder on its rows."""
    flags = {
        "model_name_or_path": folder / "model",
        "train_file": folder / "rows.csv",
        "output_dir": folder / "run",
        "cache_dir": folder / "cache",
        "global_batch_size": 12,
        "max_steps": 2,
        "do_eval": "false",
        "report_to": "none",
    }
    return ranks(0, "-m", "ringtune.train.cli", *flag_words(flags))


@pytest.mark.parametrize("family", PIECES)
def test_a_model_with_only_a_sentencepiece_file_trains_and_predicts(family, tmp_path):
    pieces = write_sentencepiece(tmp_path / "model", family)
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    own = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    for text in (" ".join(WORDS), "filmplot awfully ok"):
        assert tokenizer(text, add_special_tokens=False).tokens() == own.encode(text, out_type=str)
    write_rows(tmp_path / "rows.csv", 24, 1)
    done = train_two_steps(tmp_path)
    assert done.returncode == 0, done.output
    predicted = list(predict(str(tmp_path / "run"), ["the film was good", "dull"]))
    assert all(each["label"] in ("down", "up") for each in predicted), predicted


# How long a row may be


def limit(tmp_path, family, *, own=None, pad="[PAD]", **settings) -> RowLimit:
    """Return the limit of a tiny model; own: its tokenizer's. pad: the padding token of both."""
    tokenizer = make_tokenizer(tmp_path / "model")
    tokenizer.pad_token = pad
    tokenizer.model_max_length = own or 10**30
    tokenizer.save_pretrained(tmp_path / "model")
    write_model(tmp_path / "model", family, vocab_size=len(tokenizer), **settings)
    return open_tokenizer(str(tmp_path / "model"), lambda words: None).limit


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("bert", {"max_position_embeddings": 40}, 40),
        ("roberta", {"max_position_embeddings": 40, "pad_token_id": 0}, 39),
        ("roberta", {"max_position_embeddings": 40, "pad_token_id": 0, "own": 30}, 30),
        ("bert", {"max_position_embeddings": 40, "own": 50}, 40),
        ("distilbert", {"max_position_embeddings": 40}, 40),
        ("bart", {"max_position_embeddings": 40, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}, 40),
        ("deberta-v2", {"max_position_embeddings": 40, "position_biased_input": False}, None),
    ],
)
def test_a_row_has_no_more_tokens_than_the_model_and_its_tokenizer_take(tmp_path, family, settings, expected):
    assert limit(tmp_path, family, **settings).num_tokens == expected


def test_a_model_takes_a_row_of_its_limit_and_none_longer(tmp_path):
    """RoBERTa's positions begin behind the number of its padding token: 40 of them, for rows of 34 tokens."""
    assert limit(tmp_path, "roberta", pad="a", max_position_embeddings=40, pad_token_id=5).num_tokens == 34
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    network(input_ids=torch.full((1, 34), 6))
    with pytest.raises((IndexError, RuntimeError)):
        network(input_ids=torch.full((1, 35), 6))


def test_a_length_that_is_not_set_is_what_the_model_takes_and_one_that_is_set_is_refused_above_it():
    reports: list[str] = []
    short = RowLimit(64, "the model (its position embeddings)")
    assert short.settle(None, reports.append) == 64
    assert reports == [
        "rows have 64 tokens at most: the model (its position embeddings) takes no more (--max_seq_length)"
    ]
    assert [short.settle(asked, reports.append) for asked in (1, 64)] == [1, 64]
    for asked in (65, 128):
        with pytest.raises(
            UsageError, match=f"^--max_seq_length: {asked} is more than the model takes; at most 64: the"
        ):
            short.settle(asked, reports.append)
    assert RowLimit(512, "").settle(None, reports.append) == RowLimit(None, "").settle(None, reports.append) == 128
    assert len(reports) == 1


def test_both_commands_know_the_limit_before_the_first_row(tmp_path):
    assert limit(tmp_path, "bert", max_position_embeddings=40).num_tokens == 40
    (tmp_path / "rows.csv").write_text("text,label\n" + "the film was good," * 40)  # no row of it can be used
    flags = {
        "model_name_or_path": tmp_path / "model",
        "train_file": tmp_path / "rows.csv",
        "output_dir": tmp_path / "run",
    }
    done = ranks(0, "-m", "ringtune.train.cli", *flag_words({**flags, "max_seq_length": 41}))
    assert done.returncode == 2 and "--max_seq_length: 41 is more than the model takes; at most 40" in done.output
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="--max_seq_length: 41 is more than the model takes; at most 40"):
        predict(str(tmp_path / "model"), ["good"], max_seq_length=41)
    assert len(list(predict(str(tmp_path / "model"), ["good " * 200]))) == 1


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused_before_the_first_row(workshop, tmp_path):
    tokenizer = make_tokenizer(tmp_path / "model")
    write_model(tmp_path / "model", "bert", vocab_size=len(tokenizer) - 1)
    (tmp_path / "rows.csv").write_text("text,label\n" + "the film was good," * 40)  # no row of it can be used
    done = train_two_steps(tmp_path)
    assert done.returncode == 2 and "--resize_token_embeddings true" in done.output, done.output


def test_a_run_without_a_length_goes_on_without_one(workshop, tmp_path):
    """Its checkpoints hold the length that the model gave."""
    settings = {"max_seq_length": None, "do_eval": "false", "log_row_ids": None}
    first = workshop.train(0, tmp_path / "run", max_steps=1, **settings)
    assert first.returncode == 0 and "rows have 64 tokens at most" in first.output, first.output
    again = workshop.train(0, tmp_path / "run", max_steps=2, **settings)
    assert again.returncode == 0 and "going on from" in again.output, again.output
    assert json.loads((tmp_path / "run" / "task.json").read_text())["max_seq_length"] == 64


# Segments and padding


def opened(tmp_path, family, change=lambda tokenizer: None, *, kind="BertTokenizer", **settings):
    """Return a BERT tokenizer beside a tiny model of another family, fitted to it, and what is reported."""
    tokenizer = make_tokenizer(tmp_path / "model")
    change(tokenizer)
    tokenizer.save_pretrained(tmp_path / "model")
    write_model(tmp_path / "model", family, vocab_size=len(tokenizer), **settings)
    content = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    content["tokenizer_class"] = kind
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(content))
    reports: list[str] = []
    return open_tokenizer(str(tmp_path / "model"), reports.append).tokenizer, reports


@pytest.mark.parametrize(
    ("family", "settings", "has"),
    [
        ("distilbert", {}, "no segments"),
        ("roberta", {"type_vocab_size": 1, "pad_token_id": 0}, "one segment"),
        ("deberta-v2", {"type_vocab_size": 0}, "no segments"),
    ],
)
def test_segments_that_a_model_does_not_have_are_left_out_by_both_commands(tmp_path, family, settings, has):
    tokenizer, reports = opened(tmp_path, family, **settings)
    assert reports[-1].endswith(f"the model has {has}: the tokenizer's segment ids (token_type_ids) are left out")
    assert "token_type_ids" not in encode(tokenizer, [["good"], ["bad film"]], 16).token_columns
    tokenizer.save_pretrained(tmp_path / "again")
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tmp_path / "again")("good", "bad")
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    rows = tokenizer("good", "bad film", return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        expected = network(**rows).logits.softmax(-1)[0, 1]
    found = next(predict(str(tmp_path / "model"), [("good", "bad film")]))
    assert found["probability_LABEL_1"] == pytest.approx(float(expected), abs=1e-6)


def test_pairs_train_on_a_model_with_one_segment(tmp_path):
    opened(tmp_path, "roberta", type_vocab_size=1, pad_token_id=0)
    pairs = ["a film,the plot,up", "bad,a dull plot,down"] * 12
    (tmp_path / "rows.csv").write_text("\n".join(["sentence1,sentence2,label", *pairs]))
    done = train_two_steps(tmp_path)
    assert done.returncode == 0 and "segment ids (token_type_ids) are left out" in done.output, done.output


def test_segments_that_a_model_has_are_kept(tmp_path):
    tokenizer, reports = opened(tmp_path, "bert")
    assert "token_type_ids" in encode(tokenizer, [["good"], ["bad"]], 16).token_columns and reports == []


def test_more_segments_than_the_model_has_are_refused(tmp_path):
    def change(tokenizer):
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="$A [SEP]", pair="$A [SEP] $B:2 [SEP]:2", special_tokens=[("[SEP]", tokenizer.sep_token_id)]
        )
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names

    with pytest.raises(UsageError, match="its tokenizer gives segment 2, the model has 2 segments, from 0"):
        opened(tmp_path, "bert", change, kind="PreTrainedTokenizerFast")


def test_a_model_that_counts_positions_from_its_padding_token_refuses_another_one(tmp_path):
    with pytest.raises(
        UsageError, match=r"pads with token 0 \(\[PAD\]\), the model with token 1, and counts positions"
    ):
        opened(tmp_path, "roberta", pad_token_id=1)


def test_a_model_that_masks_padding_takes_that_of_its_tokenizer_and_reports_it(tmp_path):
    tokenizer, reports = opened(tmp_path, "bert", pad_token_id=3)
    assert reports[0].endswith("its padding token is that of its tokenizer, 0; config.json says 3")
    config = TrainConfig(str(tmp_path / "model"))
    task = Classification(Columns(("text",), "label"), ("down", "up"))
    network = model.load_model(config, task, pad_token_id=tokenizer.pad_token_id)
    assert network.config.pad_token_id == network.get_input_embeddings().padding_idx == 0


def no_padding(tokenizer) -> None:
    tokenizer.pad_token = None


def test_a_tokenizer_without_a_padding_token_takes_that_of_the_model_or_is_refused(tmp_path):
    tokenizer, reports = opened(tmp_path, "roberta", no_padding, pad_token_id=1)
    assert tokenizer.pad_token_id == 1 and "that of the model is taken" in reports[0]
    with pytest.raises(
        UsageError, match=r"has no padding token; .*tokenizer_config.json.*for a decoder the token that"
    ):
        opened(tmp_path, "gpt2", no_padding, n_embd=32, n_layer=1, n_head=2)


def test_rows_are_filled_behind_where_the_first_token_is_read(tmp_path):
    def change(tokenizer):
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"

    tokenizer, reports = opened(tmp_path, "bert", change)
    assert tokenizer.padding_side == "right" and "they are filled behind" in reports[0]
    tokenizer.save_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again").padding_side == "right"


def test_a_decoder_with_the_padding_token_of_its_tokenizer_gives_a_row_what_it_has_alone(tmp_path):
    opened(tmp_path, "gpt2", n_embd=32, n_layer=1, n_head=2, n_positions=64)
    rows = ["the film was good", "the film was very good"]  # of like length: one batch, the first one padded
    together = list(predict(str(tmp_path / "model"), rows))
    for row, found in zip(rows, together, strict=True):
        alone = next(predict(str(tmp_path / "model"), [row]))
        assert found["probability_LABEL_1"] == pytest.approx(alone["probability_LABEL_1"], abs=1e-6)
