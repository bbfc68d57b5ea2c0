"""The flags of Hugging Face's example scripts beside run_glue.py and run_classification.py."""

from __future__ import annotations

from collections.abc import Mapping

from ringtune.train.foreign_flag import Flag, refused, renamed, unused

OF_SCRIPTS: Mapping[str, Flag] = {
    # run_ner.py
    "text_column_name": renamed("text_column_names"),
    "label_all_tokens": refused("a word's first piece has its tag", "leave it out"),
    "return_entity_level_metrics": unused("ringtune-predict prints and reports the scores by type"),
}
