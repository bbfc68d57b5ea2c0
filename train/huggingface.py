"""The flags that users bring from Hugging Face, and what becomes of each: one table, from which the document is made.

Of run_glue.py, run_classification.py and TrainingArguments of transformers 4 and 5, and those of `huggingface_scripts`.
Names of settings that are ringtune's own are not here. `ringtune.train.document` writes the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ringtune.train.foreign_flag import OFF, ON, Flag, each, refused, renamed, taken, unused
from ringtune.train.huggingface_scripts import OF_SCRIPTS

#: Settings that transformers writes as null where they are not set.
NULL_BY_DEFAULT = ("output_dir", "label_column_name", "tf32", "disable_tqdm", "gradient_checkpointing")
#: Defaults that are not transformers' own: name → theirs (of run_glue.py or TrainingArguments), and why.
DEFAULTS = {
    "output_dir": ("trainer_output", "runs lie side by side"),
    "do_train": ("false", "training is what the command is for"),
    "do_eval": ("false", "a run without scores says little; without --validation_file nothing is evaluated"),
    "eval_strategy": ("no", "so that the best checkpoint is known"),
    "save_strategy": ("steps, every 500", "an epoch of any length"),
    "save_total_limit": ("none", "checkpoints are as large as the model three times"),
    "logging_steps": ("500", "fine-tuning is short"),
    "report_to": ("none", "TensorBoard writes a file in output_dir and needs no account"),
    "per_device_train_batch_size": ("8", "--global_batch_size 32 over all ranks unless both are given"),
    "per_device_eval_batch_size": ("8", "scores do not depend on it"),
    "warmup_steps": ("0", "warmup_ratio is 0.1, as in the BERT paper, unless one of them is given"),
    "weight_decay": ("0.0", "as in the BERT paper"),
    "metric_for_best_model": ("loss", "the task's own score, such as accuracy, f1 or spearmanr"),
}
_EVERY = "a number below 1 is a share of all steps"
_NO_PUSH = unused("nothing is pushed to the hub; hf upload NAME OUTPUT_DIR does it")
_COMPILE = unused("the model is not compiled: rows of many lengths would be compiled again and again")
_RECOMPUTE = unused("every layer is computed again, by torch's way that is not reentrant")
_LOADER = "rows are tokenised once, before the first step, and kept in memory maps; there is no loader"
_DDP = unused("Horovod sums the gradients, not torch's DistributedDataParallel")
_SPLITS = "the splits of a data set are found by their own names"
_SHARDED = "the model is whole on every rank; Horovod sums the gradients"
_ROWS = "only the columns of texts and label are read"
_EVAL = "evaluation is spread over all ranks, its results are small, and scores do not depend on it"
_SHARE = "use --bf16, a smaller --per_device_train_batch_size, or more ranks"

TRAIN: Mapping[str, Flag] = {
    **OF_SCRIPTS,
    # run_glue.py and run_classification.py
    **each("model_name_or_path dataset_name dataset_config_name train_file", taken()),
    "task_name": taken("of GLUE only: leave out ner, pos and chunk of run_ner.py"),
    **each("validation_file test_file max_seq_length", taken()),
    "label_column_name": taken("label unless given"),
    "text_column_names": taken("two columns are a sentence pair; they are not joined to one text"),
    "cache_dir": taken("of tokenised rows; models from the hub lie where HF_HOME says"),
    **each("max_train_samples max_eval_samples", taken("drawn by the seed, not the first rows; one line reports it")),
    "max_predict_samples": refused("all test rows are predicted", "cut the file, or use ringtune-predict"),
    "do_regression": renamed("regression"),
    "max_length": renamed("max_seq_length"),  # run_glue_no_trainer.py
    "num_warmup_steps": renamed("warmup_steps"),
    "config_name": refused(
        "a model's configuration is read with its weights",
        "name one folder that has both",
        same_as="model_name_or_path",
    ),
    "tokenizer_name": refused(
        "a model is trained with the tokenizer that lies with it",
        "name one folder that has both",
        same_as="model_name_or_path",
    ),
    "use_fast_tokenizer": refused("tokenizers are the fast ones", "leave it out", *ON),
    "model_revision": refused(
        "the newest revision is read",
        "hf download NAME --revision REVISION --local-dir FOLDER, and name the folder",
        *OFF,
        "main",
    ),
    **each(
        "token use_auth_token hub_token push_to_hub_token",
        refused("a secret has no place on a command line", "hf auth login, or the variable HF_TOKEN", *OFF, "true"),
    ),
    "trust_remote_code": refused("code from the hub is not run", "use a model that transformers knows"),
    "ignore_mismatched_sizes": unused("a head that does not fit is drawn from the seed, and one line reports it"),
    "overwrite_cache": unused("cached rows are found by content, settings and tokenizer: they are never out of date"),
    "pad_to_max_length": unused("rows are not padded to one length, which changes no result", "null"),
    "do_lower_case": refused("the tokenizer's own files settle it", "use an uncased model"),
    "data_dir": refused("a flag names the files of a split", "--train_file takes a folder, too"),
    "text_column_delimiter": refused("two columns are a pair, not joined", "join them in the file"),
    "remove_columns": unused(_ROWS),
    "remove_unused_columns": unused(_ROWS, *ON),
    "remove_splits": refused(_SPLITS, "--do_eval false leaves out validation; test is read with --do_predict only"),
    "metric_name": refused(
        "all scores of the task are computed", "--metrics adds others, --metric_for_best_model decides"
    ),
    "train_split_name": refused(_SPLITS, "write the split to a --train_file", *OFF, "train"),
    "validation_split_name": refused(_SPLITS, "write the split to a --validation_file", *OFF, "validation"),
    "test_split_name": refused(_SPLITS, "write the split to a --test_file", *OFF, "test"),
    "shuffle_train_dataset": unused("every epoch has an order of its own, and samples are drawn by the seed"),
    "shuffle_seed": refused("one seed draws everything", "--seed", same_as="seed"),
    # TrainingArguments: what is computed
    **each("learning_rate num_train_epochs max_steps adam_beta1 adam_beta2 adam_epsilon max_grad_norm", taken()),
    **each("gradient_accumulation_steps label_smoothing_factor bf16 fp16 use_cpu seed", taken()),
    "per_device_train_batch_size": taken("rows per rank on average; it must multiply out with --global_batch_size"),
    "per_device_eval_batch_size": taken("of rows of max_seq_length; more of shorter ones"),
    "per_gpu_train_batch_size": renamed("per_device_train_batch_size"),
    "per_gpu_eval_batch_size": renamed("per_device_eval_batch_size"),
    "weight_decay": taken("not on biases and norms"),
    "tf32": taken("off unless given"),
    "no_cuda": renamed("use_cpu"),
    "lr_scheduler_type": taken(
        "constant has no warm-up",
        reduce_lr_on_plateau="it follows the scores, and a step would depend on more than its number; "
        "--early_stopping_patience stops instead",
        greedy="it follows the loss, and a step would depend on more than its number; cosine needs no tuning",
    ),
    "lr_scheduler_kwargs": taken("JSON of what the schedule takes"),
    "warmup_steps": taken("below 1 a share of all steps; wins over warmup_ratio unless it is 0"),
    "warmup_ratio": taken("a share of all steps"),
    "optim": taken("adamw_torch is the fused one, too"),
    **each(
        "optim_args optim_target_modules",
        refused("an optimizer has its own flags", "--adam_beta1, --sgd_momentum and the like"),
    ),
    "adafactor": refused("it is an optimizer by name", "--optim adafactor"),
    "average_tokens_across_devices": unused("the loss of a step is divided by the rows of all ranks, always", *ON),
    **each("bf16_full_eval fp16_full_eval", refused("evaluation computes as training does", "--bf16 or --fp16")),
    **each(
        "half_precision_backend fp16_backend",
        refused("torch's autocast computes", "leave it out", *OFF, "auto", "amp", "cuda_amp", "cpu_amp"),
    ),
    "fp16_opt_level": unused("it is apex's; torch's autocast computes"),
    "gradient_checkpointing": taken("layers are computed again in backward; no bit of the run changes"),
    "activation_checkpointing": renamed("gradient_checkpointing"),
    **each("gradient_checkpointing_kwargs activation_checkpointing_kwargs", _RECOMPUTE),
    **each("torch_compile torch_compile_backend torch_compile_mode torchdynamo jit_mode_eval use_ipex", _COMPILE),
    **each("use_liger_kernel liger_kernel_config", unused("its kernels are for language models")),
    "use_cache": unused("nothing is generated"),
    "neftune_noise_alpha": refused("no noise is added", "--dropout regularises", *OFF, "0", "0.0"),
    "torch_empty_cache_steps": unused("memory is not given back to the GPU between steps, which would slow them"),
    "auto_find_batch_size": refused(
        "the batch size changes what is learnt", "when memory runs out, the message names what to lower"
    ),
    "full_determinism": refused("there is a mode for it", "--mode exact"),
    "data_seed": refused("one seed draws everything", "--seed", same_as="seed"),
    "train_sampling_strategy": refused(
        "the rows of a step are drawn at random; of most models they are packed, not padded",
        "leave it out",
        "random",
    ),
    "group_by_length": refused(
        "the rows of a step are drawn at random; of most models they are packed, not padded", "leave it out"
    ),
    "length_column_name": unused("rows are not grouped by length"),
    "label_names": refused(
        "they are arguments of a model", "--label_column_name names the column", *OFF, "labels", '["labels"]'
    ),
    "past_index": unused("models that use past states are not for this"),
    # when to log, evaluate and save
    "logging_steps": taken(_EVERY),
    "logging_first_step": taken(),
    "logging_strategy": refused("metrics.jsonl has a line every so many steps", "--logging_steps N", "steps"),
    **each("log_level log_level_replica", unused("rank 0 reports, in few lines", "null", "passive")),
    "log_on_each_node": unused("rank 0 reports, in few lines", *ON),
    "logging_nan_inf_filter": unused("a loss that is not finite stops the run, and its rows are named", *ON),
    "logging_dir": unused("curves lie in OUTPUT_DIR/tensorboard, so that a resumed run goes on in them"),
    **each(
        "include_num_input_tokens_seen include_tokens_per_second",
        unused("metrics.jsonl has the tokens of every step in it"),
    ),
    "skip_memory_metrics": unused("metrics.jsonl always has the peak of memory", *ON),
    "debug": unused("a loss that is not finite stops the run, and its rows are named"),
    "disable_tqdm": taken(),
    "report_to": taken(
        "tensorboard or none; all is tensorboard",
        others="curves go to TensorBoard's files and to metrics.jsonl, which other services can read",
    ),
    **each(
        "run_name project trackio_space_id trackio_bucket_id trackio_static_space_id",
        unused("there is no service that a run is reported to; its name is its output_dir"),
    ),
    "eval_strategy": taken("no, steps or epoch; steps without eval_steps: every logging_steps if given, or 500"),
    "evaluation_strategy": renamed("eval_strategy"),
    "eval_steps": taken(f"given alone it means eval_strategy steps; {_EVERY}"),
    "eval_delay": refused("evaluation starts with training", "--eval_steps", *OFF, "0", "0.0"),
    "eval_on_start": refused("a model is evaluated when it has learnt", "ringtune-predict evaluates any model"),
    **each("prediction_loss_only include_for_metrics include_inputs_for_metrics batch_eval_metrics", unused(_EVAL)),
    **each("eval_use_gather_object eval_accumulation_steps", unused(_EVAL)),
    "eval_do_concat_batches": unused(_EVAL, *ON),
    "save_strategy": taken(
        "no, steps or epoch (steps without save_steps: every 500); one is also written before every evaluation and at "
        "the end",
        best="a checkpoint is written before every evaluation, and the best one is always kept",
    ),
    "save_steps": taken(f"given alone it means save_strategy steps; {_EVERY}"),
    "save_total_limit": taken("the best one is kept beside these"),
    **each("load_best_model_at_end metric_for_best_model greater_is_better", taken()),
    "save_only_model": refused("a checkpoint is there to go on from", "the final model is one without optimizer"),
    "save_on_each_node": refused("rank 0 writes", "an --output_dir that all hosts share"),
    "save_safetensors": refused("no pickle is written", "leave it out", *ON),
    "enable_jit_checkpoint": unused("SIGTERM and SIGUSR1 always lead to a checkpoint"),
    # the run
    "output_dir": taken(),
    "overwrite_output_dir": taken("an unfinished run in output_dir goes on without it"),
    "do_train": taken("only true: ringtune-predict evaluates and predicts without training"),
    "do_eval": taken("false wins over eval_strategy"),
    "do_predict": taken("writes OUTPUT_DIR/predict_results.txt: number and prediction of each row of test_file"),
    "resume_from_checkpoint": taken("true is latest; an unfinished output_dir goes on without it"),
    "ignore_data_skip": refused("a resumed run sees every row once", "leave it out"),
    "restore_callback_states_from_checkpoint": unused("a checkpoint always restores everything"),
    "push_to_hub": refused("nothing is pushed", "hf upload NAME OUTPUT_DIR when the run has finished"),
    **each("hub_model_id hub_strategy hub_always_push hub_private_repo hub_revision", _NO_PUSH),
    **each("push_to_hub_model_id push_to_hub_organization", _NO_PUSH),
    # processes
    **each("dataloader_num_workers dataloader_persistent_workers dataloader_prefetch_factor", unused(_LOADER)),
    "dataloader_multiprocessing_context": unused(_LOADER),
    **each("dataloader_pin_memory dataloader_in_order", unused(_LOADER, *ON)),
    "dataloader_drop_last": refused("an epoch has every row", "leave it out"),
    **each("ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend", _DDP),
    "ddp_timeout": unused("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS is how long ranks wait for one that hangs"),
    "local_rank": refused(
        "ranks come from Horovod or MPI, not from torch's launcher", "horovodrun, mpirun or ringtune-launch run", "-1"
    ),
    **each("fsdp fsdp_config fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap", refused(_SHARDED, _SHARE)),
    **each("deepspeed sharded_ddp parallelism_config mp_parameters", refused(_SHARDED, _SHARE)),
    **each("accelerator_config dispatch_batches split_batches", refused("accelerate is not used", "leave it out")),
    **each(
        "use_mps_device xpu_backend tpu_num_cores tpu_metrics_debug",
        refused("CPUs and NVIDIA's GPUs compute", ("leave it out")),
    ),
    "ray_scope": unused("ringtune-train sweep --search optuna searches, docs/search.md"),
}


def of_prediction(own: Iterable[str], of_training: Iterable[str]) -> dict[str, Flag]:
    """Return what becomes of the flags that are brought to ringtune-predict. **Pure.**

    own: its settings. of_training: those of ringtune-train.
    """
    for_training = refused("it belongs to training", "the model's own settings are taken over; see --help")
    flags = {
        **dict.fromkeys((*TRAIN, *of_training), for_training),
        **each("validation_file test_file", renamed("input")),
        "output_dir": refused("one file is written", "--output FILE"),
        "per_device_eval_batch_size": refused("batches are counted in tokens", "--batch_tokens"),
        **each("dataset_name task_name", refused("rows have one flag", "--input NAME of a file or data set")),
        **each("do_predict do_eval", unused("it predicts, and scores what has labels")),
        **each("no_cuda", renamed("use_cpu")),
        **each("max_length", renamed("max_seq_length")),
    }
    return {name: flag for name, flag in flags.items() if name not in set(own)}
