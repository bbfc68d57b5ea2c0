"""The model, the same on every rank without a broadcast."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ringtune.train import (
    adapter,
    adapter_folder,
    adapter_settings,
    attention,
    final,
    head,
    init_from,
    model_tokens,
    saved_tokenizer,
    weights,
)
from ringtune.train.adapter_folder import PREFIX, AdapterFolder
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.first_token import leave_out_other_tokens
from ringtune.train.masked_tokens import read_masked_tokens
from ringtune.train.pretrained import error_in_one_line, read_config, saved_config, set_dropout
from ringtune.train.recompute import recompute_layers
from ringtune.train.reinit import reinitialise
from ringtune.train.task import Task, auto_class_of, of_model
from ringtune.train.task import read as read_task
from ringtune.train.task.masked_lm import MaskedLM
from ringtune.train.task.multiple_choice import MultipleChoice
from torch import nn


def require_readable(name: str, *, allow_pickle: bool) -> None:
    """Raise UsageError for a folder whose weights cannot be read, or that is not as ringtune wrote it."""
    base = adapter_folder.base_of(name)
    _require_whole(name, base)
    weights.loading_settings(base, allow_pickle=allow_pickle)


def _require_whole(*names: str) -> None:
    """Raise UsageError for one of several models that is not as ringtune wrote it."""
    for name in dict.fromkeys(names):
        final.require_whole(name)


def load_model(
    config: TrainConfig,
    task: Task,
    num_tokens: int = 0,
    report: Callable[[str], None] = lambda words: None,
    *,
    pad_token_id: int | None = None,
) -> nn.Module:
    """Return the model to train, fp32, on the CPU.

    num_tokens, pad_token_id: of its tokenizer. report: takes what becomes of a head that the model has. Raises
    UsageError.

    The new head is drawn from the seed, so all ranks get the same one. Every rank reads the same files; broadcasting
    weights or optimizer state through Horovod is neither needed nor safe (its optimizer broadcast takes a real step).
    """
    import transformers

    source = adapter_folder.find(config.model_name_or_path)
    name = config.model_name_or_path if source is None else source.base
    reading = weights.loading_settings(name, allow_pickle=config.allow_pickle)
    auto_class = getattr(transformers, task.auto_class)
    padding = {} if pad_token_id is None else {"pad_token_id": pad_token_id}
    model_config = read_config(name, **task.model_settings(), **padding)
    with error_in_one_line(name):
        if config.dropout is not None:
            set_dropout(model_config, config.dropout)
        torch.manual_seed(config.seed)
        model, loaded = auto_class.from_pretrained(
            name,
            config=model_config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **reading,
        )
    head.require_body(model, loaded, f"--model_name_or_path {name}")
    saved = saved_config(name)
    settled = _settle_head(model, loaded, saved, task, config) if source is None else ""
    added = _add_adapter(model, loaded, source, task, config)
    others = (_compute_no_more(model, task), *_change_layers(model, config))
    for line in filter(None, (*_changes(saved, task), settled, *added, *others)):
        report(f"model {config.model_name_or_path}: {line}")
    model_tokens.fit(model, num_tokens, resize=config.resize_token_embeddings, seed=config.seed)
    return model


def _settle_head(
    model: nn.Module, loaded: Mapping[str, Any], saved: Mapping[str, Any], task: Task, config: TrainConfig
) -> str:
    """Keep of the head what the task knows; return what to report of it. saved: the model's configuration as it was."""
    if config.init_from:
        init_from.grow_head(model, task, config)
        return ""  # reported with the rows, whose classes decide it
    return head.settle_head(model, loaded, head.saved_classes(saved), task, config.seed)


def _change_layers(model: nn.Module, config: TrainConfig) -> Iterator[str]:
    """Do with a model's layers what the settings ask for; give a line about each."""
    if config.reinit_layers:
        yield reinitialise(model, config.reinit_layers, config.seed)
    if config.gradient_checkpointing:
        yield recompute_layers(model)


def _add_adapter(
    model: nn.Module, loaded: Mapping[str, Any], source: AdapterFolder | None, task: Task, config: TrainConfig
) -> list[str]:
    """Put the adapter that a run asks for, or starts from, into its model; return what to report, nothing for none.

    loaded: what transformers reports of loading. source: the adapter's folder to start from. Raises UsageError.
    """
    asked = adapter_settings.of_run(config)
    where = adapter_settings.asked_by(config)
    if (asked is not None or source is not None) and isinstance(task, MaskedLM):
        raise UsageError(
            where or f"--model_name_or_path {config.model_name_or_path}",
            f"{task.kind} takes no adapter: the head is tied to the word embeddings, which it leaves as they are",
            legal="a task with a head of its own",
            todo="train the model whole, or with --freeze",
        )
    if source is not None and (asked is not None or config.resize_token_embeddings or config.reinit_layers):
        raise UsageError(
            where or "--resize_token_embeddings, --reinit_layers",
            f"{source.path} is an adapter, which is trained on as it is",
            legal="neither with an adapter",
            todo="leave it out, or start from a whole model",
        )
    if source is None and asked is None:
        if config.save_merged_model:
            raise UsageError("--save_merged_model", "there is no adapter to merge", legal="with --lora_r")
        return []
    new = loaded["missing_keys"]
    if source is None:
        assert asked is not None
        adapter.require_modules(model, asked, where)
        mine = adapter.add(model, asked, config.model_name_or_path, where, new=new, seed=config.seed)
        return [mine.describe()]
    name, _ = head.output_layer(model, head.outputs_of(task))
    mine = adapter.add(model, source.settings, source.base, source.where, new=new, seed=config.seed)
    mine.require_base(source.base_digest, source.where)
    found = read_task(source.path)
    classes = getattr(found[0], "classes", None) if found else None
    tensors, settled = head.settle_tensors(source.tensors(), f"{PREFIX}{name}", classes, task)
    fresh = [each for each in mine.tensors() if each.startswith(f"{PREFIX}{name}.") or ".pooler." in each]
    mine.restore(tensors, source.where, fresh)
    return [f"its base is {source.base}", settled, mine.describe()]


def _compute_no_more(model: nn.Module, task: Task) -> str:
    """Let a model leave out what nothing reads: padding, and tokens but the first; return what of it, for the user."""
    if isinstance(task, MultipleChoice):
        head.align(model)
    if task.reads_first_token:
        leave_out_other_tokens(model)
    if isinstance(task, MaskedLM):
        read_masked_tokens(model)
    if attention.can_pack(model, reads_first_token=task.reads_first_token):
        attention.take_packed_rows(model)
        return "its rows are packed: no padding is computed"
    return "its rows are padded"


def _changes(saved: Mapping[str, Any], task: Task) -> Iterator[str]:
    """Give what training changes of a model beside its weights. saved: its configuration as it was. **Pure.**"""
    dtype = str(saved.get("dtype") or saved.get("torch_dtype") or "float32")
    if dtype != "float32":
        yield f"its weights are {dtype}: they are trained and saved as float32"
    was_masked = _unknown_auto_class(saved) == MaskedLM.auto_class
    if isinstance(task, MaskedLM):
        if str((saved.get("architectures") or [""])[0]).endswith(("Classification", "Answering", "Choice")):
            yield "it was trained to predict something else: that head is left out"
        return
    if was_masked:
        yield "it was trained on masked tokens: that head is left out, and a new one is drawn"
    before, after = saved.get("problem_type"), task.model_settings().get("problem_type")
    if before == "multi_label_classification" != after:
        yield "it was trained to give a row several labels; now it is trained to give one"
    if before is not None and before != "multi_label_classification" == after:
        yield "it was trained to give a row one label; now it is trained to give several"


def _unknown_auto_class(saved: Mapping[str, Any]) -> str:
    """Return the Auto class of a model that was trained elsewhere. saved: its configuration. **Pure.**"""
    return auto_class_of(SimpleNamespace(**{"architectures": None, **saved}))


def load_trained(name: str, *, allow_pickle: bool = False) -> tuple[nn.Module, Task, int | None]:
    """Return a trained model as it was saved, fp32, on the CPU; its task; its max_seq_length, None if it is not known.

    The task is that of its ``task.json``; of a folder without one, the task of its configuration. Raises UsageError for
    a model whose head was never trained: it would be drawn at random and predict noise.
    """
    import transformers

    where = f"--model_name_or_path {name}"
    source = adapter_folder.find(name)
    base = name if source is None else source.base
    _require_whole(name, base)
    reading = weights.loading_settings(base, allow_pickle=allow_pickle)
    saved = saved_config(base)
    found = read_task(Path(name).expanduser())
    tensors = {} if source is None else source.tensors()
    settings = {} if source is None else found[0].model_settings() if found else source.head_settings(tensors)
    unknown = (source and source.auto_class) or _unknown_auto_class(saved)
    auto_class = getattr(transformers, found[0].auto_class if found else unknown)
    with error_in_one_line(base):
        model, loaded = auto_class.from_pretrained(
            base, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True, **settings, **reading
        )
    if source is None:
        head.refuse_other_shapes(loaded["mismatched_keys"], where)
    else:
        mine = adapter.add(model, source.settings, base, where)
        mine.restore(tensors, where)
        mine.require_base(source.base_digest, where)
    missing = [each for each in sorted(loaded["missing_keys"]) if f"{PREFIX}{each}" not in tensors]
    if missing:
        raise UsageError(
            where,
            f"{missing[0]} is not in it ({len(missing)} tensors): it was not trained to classify",
            legal="a fine-tuned model",
            todo="fine-tune it with ringtune-train first",
        )
    model.config.architectures = [type(model).__name__]  # type: ignore[union-attr]  # an adapter's base may be another
    task, max_seq_length = found if found else (of_model(model.config, where), None)
    if found:
        _refuse_other_outputs(model, task, where)
    _compute_no_more(model, task)
    return model, task, max_seq_length


def _refuse_other_outputs(model: nn.Module, task: Task, where: str) -> None:
    """Raise UsageError for a model with another head than that of the task that lies with it."""
    config: Any = model.config
    wanted, found = task.model_settings().get("num_labels"), config.num_labels
    if wanted not in (found, None):
        raise UsageError(where, f"its task.json has {wanted} outputs, its model {found}", legal="files of one run")


def restore_model(model: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Put saved weights back. Raises UsageError if they are another model's."""
    mine = adapter.of(model)
    if mine is not None:
        mine.restore(tensors, where)
        return
    own = model.state_dict()
    wrong = [name for name, tensor in tensors.items() if name not in own or own[name].shape != tensor.shape]
    tied = {each.data_ptr() for name, each in own.items() if name in tensors}
    wrong += [name for name, each in own.items() if name not in tensors and each.data_ptr() not in tied]
    if wrong:
        raise UsageError(
            where,
            f"it is a checkpoint of another model: {wrong[0]} does not fit ({len(wrong)} tensors)",
            legal="a checkpoint of the same model",
            todo="check --model_name_or_path",
        )
    model.load_state_dict(tensors, strict=False)


def pretrained_files(model: nn.Module, tokenizer: Any) -> dict[str, bytes]:
    """Return what ``from_pretrained`` needs beside the weights: the files of the configuration, or of the adapter, and
    the tokenizer's. Raises UsageError for a tokenizer that cannot be saved."""
    mine = adapter.of(model)
    files = config_files(model) if mine is None else mine.files()
    with tempfile.TemporaryDirectory() as folder:
        saved_tokenizer.write(tokenizer, Path(folder))
        return files | _files_in(folder)


def config_files(model: nn.Module) -> dict[str, bytes]:
    """Return the files of a model's configuration."""
    model.config.architectures = [type(model).__name__]  # type: ignore[union-attr]  # not that of what it began as
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)  # type: ignore[union-attr, operator]
        return _files_in(folder)


def _files_in(folder: str) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(Path(folder).iterdir()) if each.is_file()}
