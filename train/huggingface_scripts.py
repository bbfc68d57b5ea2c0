"""The flags of Hugging Face's example scripts beside run_glue.py and run_classification.py."""

from __future__ import annotations

from collections.abc import Mapping

from ringtune.train.foreign_flag import OFF, Flag, each, refused, renamed, taken, unused

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
    # run_mlm.py and run_mlm_wwm.py, with --task masked_lm
    "mlm_probability": taken("0.15 unless given; exactly that share of each row is masked, not each token by chance"),
    "line_by_line": taken("a longer text is cut into several rows, not shortened"),
    "preprocessing_num_workers": unused("one rank of each host tokenises, by the tokenizer's own threads"),
    "validation_split_percentage": refused("no row is taken from the training rows", "a --validation_file"),
    "streaming": refused("rows are tokenised once, before the first step", "leave it out"),
    **each("model_type config_overrides", refused("training starts from a model", "--model_name_or_path")),
    **each(
        "dtype torch_dtype",
        refused("weights are trained and saved as float32", "--bf16 computes in bfloat16", *OFF, "auto", "float32"),
    ),
    **each(
        "train_ref_file validation_ref_file",
        refused("the tokenizer says which pieces make a word", "--whole_word_mask true"),
    ),
}
