"""The settings of a run that say what an update of the model is, and how it is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ringtune.train.flags import free
from ringtune.train.row_settings import RowSettings


@dataclass(frozen=True)
class UpdateSettings(RowSettings):
    """Optimizer, loss, what is trained of the model, number formats, and devices."""

    mode: Literal["fast", "exact"] = "fast"
    """fast: ring-allreduce overlapped with backward. exact: parameters bitwise equal at any world size."""
    global_batch_size: int | None = None
    """Rows per optimizer update, over all ranks; default 32."""
    per_device_train_batch_size: int | None = free(None)
    """Rows per rank and backward, on average; with the others it must multiply out to the global batch size."""
    gradient_accumulation_steps: int | None = free(None)
    """Backwards per optimizer update and rank."""
    num_shards: int | None = None
    """Parts a step is dealt into; default: ranks x gradient_accumulation_steps, in exact mode 8."""
    per_device_eval_batch_size: int = 32
    """Rows of max_seq_length per evaluation batch; of shorter ones it takes as many more as cost the same."""
    compression: Literal["none", "fp16", "bf16", "acp"] = "none"
    """How gradients are sent in fast mode. none: as fp32. fp16: half the bytes, scaled so that none overflows. bf16:
    half the bytes, added in fp32. acp: as factors of low rank, what these lack is added to the next gradient (ACP-SGD).
    docs/wire.md has what is exact."""
    compression_rank: int = 4
    """Rank of the factors of acp."""
    fp16_allreduce: bool = False
    """The same as --compression fp16."""
    num_threads: int | None = None
    """CPU threads per rank; default: OMP_NUM_THREADS or a fair share of the cores; in exact mode 1."""

    learning_rate: float = 5e-5
    """Peak learning rate."""
    layerwise_lr_decay: float = 1.0
    """What the learning rate of a layer is of the one above it, the head's being whole; such as 0.9."""
    reinit_layers: int = 0
    """Last layers that start from random weights, with the pooler; steadier where rows are few."""
    gradient_checkpointing: bool = free(False)
    """Keep only the input of each layer and compute the layer again in backward: less memory, slower."""
    keep_close: float = 0.0
    """Hold the parameters close to those of init_from: this, halved, times their squared distance is added to the loss
    (L2-SP), such as 0.1."""
    keep_answers: float = 0.0
    """Hold the answers close to those of init_from: this times how far they are from them is added to the loss
    (distillation), such as 1."""
    freeze: str | None = None
    """Parameters to leave as they are: patterns of their names, joined by commas, such as 'bert.embeddings.*'."""
    lora_r: int | None = None
    """Train an adapter and leave the model as it is: LoRA of this rank (docs/few-parameters.md)."""
    lora_alpha: float | None = None
    """What LoRA gives is multiplied by lora_alpha / lora_r; default: twice lora_r."""
    lora_dropout: float | None = None
    """Dropout in front of LoRA; default 0.05."""
    lora_target_modules: str | None = None
    """Layers that get LoRA: ends of their names joined by commas, such as query,value, or all-linear; default: those of
    attention that peft has for the architecture."""
    peft_config: str | None = None
    """JSON file of another adapter than LoRA, or of all its settings, as peft's adapter_config.json."""
    save_merged_model: bool = free(False)
    """Beside the adapter, write the model with it merged in, to output_dir/merged."""
    optim: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "lamb", "sgd"] = "adamw_torch_fused"
    """Optimizer; the first two are one. adafactor: as transformers' Trainer sets it. lamb: for large
    batches."""
    sgd_momentum: float = 0.9
    """Momentum of sgd."""
    num_train_epochs: float = free(3.0)
    """Epochs to train."""
    max_steps: int = free(-1)
    """Steps to train; overrides num_train_epochs if positive."""
    warmup_ratio: float = 0.1
    """Part of all steps over which the learning rate rises from 0."""
    warmup_steps: int = 0
    """Steps over which it rises, or below 1 their part; overrides warmup_ratio if positive; 0 alone: no warm-up."""
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "warmup_stable_decay",
        "one_cycle",
    ] = "linear"
    """How the learning rate falls behind the warm-up; constant has no warm-up either."""
    lr_scheduler_kwargs: dict[str, Any] | None = None
    """What its schedule takes, as JSON, such as {"num_cycles": 3}."""
    weight_decay: float = 0.01
    """Decoupled weight decay, not on biases and norms."""
    adam_beta1: float = 0.9
    """Decay of AdamW's and LAMB's first moment."""
    adam_beta2: float = 0.999
    """Decay of AdamW's and LAMB's second moment."""
    adam_epsilon: float = 1e-8
    """Term added to their denominator."""
    max_grad_norm: float = 1.0
    """Clip the gradient to this norm, after the reduction; 0 for never."""
    ema_decay: float | None = None
    """Average the parameters over the last 1 / (1 - ema_decay) updates, such as 0.999, or at step N over (N + 10) / 9
    where that is fewer; the average is evaluated, saved and left as the model."""
    label_smoothing_factor: float = 0.0
    """Share of the target spread over all classes."""
    class_weights: str | None = None
    """What a row of each class counts in training: auto (all classes the same), numbers in the order of the classes, or
    by name, such as spam=5,ham=1. Where a row may have several labels: what each counts in rows that have it (auto:
    rows without it / rows with it)."""
    focal_gamma: float = 0.0
    """Count rows less that are right already: the loss times (1 - probability) to this power (focal loss)."""
    balanced_sampling: bool = False
    """Draw each class equally often: rows of rare classes several times in an epoch, of frequent ones not all."""
    dropout: float | None = None
    """Dropout of hidden layers and attention; default: the model's own."""
    bf16: bool = False
    """Compute in bfloat16 where it is safe; weights stay fp32."""
    fp16: bool = False
    """Compute in float16 with loss scaling; weights stay fp32."""
    tf32: bool = False
    """Let a GPU multiply fp32 matrices with the precision of TF32; much faster, about three digits."""
    use_cpu: bool = free(False)
    """Compute on the CPU even where there is a GPU."""
    share_gpus: bool = free(False)
    """Let several ranks use one GPU, their gradients summed through the host's memory: for tests, and slow."""
    seed: int = 42
    """Source of everything random."""
