"""A tokenizer of any family works with the model it belongs to; what does not fit is refused or named."""

from __future__ import annotations

import pytest
import sentencepiece
from conftest import flag_words, ranks
from families import PIECES, write_sentencepiece
from ringtune.train.model import load_tokenizer
from ringtune.train.predict import predict
from tiny import WORDS, write_rows


@pytest.mark.parametrize("family", PIECES)
def test_a_model_with_only_a_sentencepiece_file_trains_and_predicts(family, tmp_path):
    pieces = write_sentencepiece(tmp_path / "model", family)
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    own = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    for text in (" ".join(WORDS), "filmplot awfully ok"):
        assert tokenizer(text, add_special_tokens=False).tokens() == own.encode(text, out_type=str)
    flags = {
        "model_name_or_path": tmp_path / "model",
        "train_file": write_rows(tmp_path / "rows.csv", 24, 1),
        "output_dir": tmp_path / "run",
        "cache_dir": tmp_path / "cache",
        "global_batch_size": 12,
        "max_steps": 2,
        "do_eval": "false",
        "report_to": "none",
    }
    done = ranks(0, "-m", "ringtune.train.cli", *flag_words(flags))
    assert done.returncode == 0, done.output
    predicted = list(predict(str(tmp_path / "run"), ["the film was good", "dull"]))
    assert all(each["label"] in ("down", "up") for each in predicted), predicted
