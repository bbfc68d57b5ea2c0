"""The flags of Hugging Face's example scripts beside run_glue.py and run_classification.py."""

from __future__ import annotations

from collections.abc import Mapping

from ringtune.train.foreign_flag import Flag, refused, renamed, taken, unused

OF_SCRIPTS: Mapping[str, Flag] = {
    # run_ner.py
    "text_column_name": renamed("text_column_names"),
    "label_all_tokens": refused("a word's first piece has its tag", "leave it out"),
    "return_entity_level_metrics": unused("ringtune-predict prints and reports the scores by type"),
    # run_qa.py
    "doc_stride": taken("tokens that windows share; 128, or a quarter of max_seq_length, which is 128 here, not 384"),
    "n_best_size": taken("the best of all spans, not only of the best starts with the best ends"),
    "max_answer_length": taken(),
    "null_score_diff_threshold": taken("only where training rows without an answer make one possible"),
    "version_2_with_negative": unused("training rows without an answer say it; without such rows none is predicted"),
}
