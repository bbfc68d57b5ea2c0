"""What of a pretrained model is kept: all of its body, and its head where that knows the classes of the task.

transformers fills in what a file lacks with random numbers and says so in a log that nobody reads; its heads know
classes by number only. Here whatever is missing of the body is refused, and a head is kept by the names of its classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from ringtune.train.columns import shown_names
from ringtune.train.contract import UsageError
from ringtune.train.task import Task
from ringtune.train.task.masked_lm import MaskedLM
from torch import nn


def require_body(model: nn.Module, loaded: Mapping[str, Any], where: str) -> None:
    """Raise UsageError if weights of the body were not in the file: the model would be trained from noise.

    loaded: what transformers reports of loading. A pooler may be new: models that predict words have none.
    """
    prefix = f"{model.base_model_prefix}."
    refuse_other_shapes([each for each in loaded["mismatched_keys"] if each[0].startswith(prefix)], where)
    missing = [name for name in sorted(loaded["missing_keys"]) if name.startswith(prefix) and ".pooler." not in name]
    if not missing:
        return
    found = sorted(loaded["unexpected_keys"])
    renamed = _prefix_of(found, missing)
    raise UsageError(
        where,
        f"{len(missing)} of its weights are not in it, {missing[0]} for one: they would be random numbers",
        legal="the weights of this architecture by the names of transformers",
        todo=f"its weights have {renamed!r} before their names: save them without it"
        if renamed
        else f"it has {found[0]}, for one, instead"
        if found
        else "check the folder",
    )


def refuse_other_shapes(mismatched: Iterable[Sequence[Any]], where: str) -> None:
    """Raise UsageError for weights of other shapes than config.json makes; transformers draws new ones instead.

    mismatched: name, shape in the file and shape in the model, as transformers reports them.
    """
    for name, in_file, in_model in mismatched:
        raise UsageError(
            where,
            f"{name} has shape {list(in_file)} in its weights, {list(in_model)} by its config.json",
            legal="files of one model",
            todo="correct config.json",
        )


def _prefix_of(found: Sequence[str], missing: Sequence[str]) -> str:
    """Return what stands before every missing name among those that were found, "" if nothing does. **Pure.**"""
    first = next((each for each in found if each.endswith(missing[0])), "")
    prefix = first.removesuffix(missing[0])
    return prefix if prefix and {prefix + each for each in missing} <= set(found) else ""


def settle_head(model: nn.Module, loaded: Mapping[str, Any], names: Sequence[str] | None, task: Task, seed: int) -> str:
    """Keep the head by the names of its classes, or draw a new one; return what to report, "" if it was new anyway.

    names: the classes of the saved head in its order, None if they have no names.
    """
    if isinstance(task, MaskedLM):
        return _about_vocabulary_head(model, loaded)
    classes = tuple(getattr(task, "classes", ()))
    num_outputs = outputs_of(task)
    name, output = output_layer(model, num_outputs)
    saved_shape = {key: shape for key, shape, _ in loaded["mismatched_keys"]}.get(f"{name}.weight")
    if saved_shape:
        what = shown_names(classes) if classes else f"{num_outputs} number(s)"
        return f"its head has {saved_shape[0]} output(s): a new one is drawn for {what}"
    if output is None or f"{name}.weight" in loaded["missing_keys"]:
        return ""
    if not classes:
        return f"its head is kept: {num_outputs} number(s)"
    numbers = tuple(map(str, range(len(classes))))
    if tuple(names or numbers) == classes:
        return f"its head is kept: classes {shown_names(classes)}"
    if names and set(names) == set(classes):
        _reorder(output, [list(names).index(each) for each in classes])
        return f"its head is kept by the names of its classes: {shown_names(classes)}"
    torch.manual_seed(seed)
    nn.init.normal_(output.weight, std=float(getattr(model.config, "initializer_range", 0.02)))
    if output.bias is not None:
        nn.init.zeros_(output.bias)
    known = f"knows other classes ({shown_names(names)})" if names else "gives its classes no names"
    return f"its head {known}: a new one is drawn for {shown_names(classes)}"


def _about_vocabulary_head(model: nn.Module, loaded: Mapping[str, Any]) -> str:
    """Return what to report of a head for masked tokens, "" if all of it was there."""
    prefix = f"{model.base_model_prefix}."
    names = [*loaded["missing_keys"], *(each[0] for each in loaded["mismatched_keys"])]
    new = sorted(each for each in names if not each.startswith(prefix))
    return f"{len(new)} tensors of its head for masked tokens are drawn: {shown_names(new)}" if new else ""


def settle_tensors(
    tensors: Mapping[str, torch.Tensor], name: str, names: Sequence[str] | None, task: Task
) -> tuple[dict[str, torch.Tensor], str]:
    """Return an adapter's tensors with its head as `settle_head` settles it, without one that is to be drawn; and what
    to report. **Pure.**

    name: of the head's last layer among the tensors. names: as there.
    """
    own = [each for each in tensors if each.startswith(f"{name}.")]
    others = {each: tensor for each, tensor in tensors.items() if each not in own}
    classes = tuple(getattr(task, "classes", ()))
    what = shown_names(classes) if classes else f"{outputs_of(task)} number(s)"
    if any(len(tensors[each]) != outputs_of(task) for each in own):
        return others, f"its head has {len(tensors[own[0]])} output(s): a new one is drawn for {what}"
    if not classes or tuple(names or map(str, range(len(classes)))) == classes:
        return dict(tensors), f"its head is kept: {what}"
    if names and set(names) == set(classes):
        order = [list(names).index(each) for each in classes]
        sorted_ones = {each: tensors[each][order] for each in own}
        return {**others, **sorted_ones}, f"its head is kept by the names of its classes: {what}"
    known = f"knows other classes ({shown_names(names)})" if names else "gives its classes no names"
    return others, f"its head {known}: a new one is drawn for {what}"


def saved_classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes that a model's saved configuration names, None if it names none. **Pure.**"""
    by_number = config.get("id2label") or {}
    names = tuple(str(by_number[each]) for each in sorted(by_number, key=int))
    return None if not names or names == tuple(f"LABEL_{number}" for number in range(len(names))) else names


def outputs_of(task: Task) -> int:
    """Return how many numbers the head of a task's model gives; for a term there may be others. **Pure.**"""
    return int(task.model_settings().get("num_labels", task.width))


def output_layer(model: nn.Module, width: int) -> tuple[str, nn.Linear | None]:
    """Return the last layer of the head, with its name."""
    body = f"{model.base_model_prefix}."
    layers = [
        (name, each)
        for name, each in model.named_modules()
        if isinstance(each, nn.Linear) and not name.startswith(body) and each.out_features == width
    ]
    return layers[-1] if layers else ("", None)


def align(model: nn.Module) -> None:
    """Move a head of one output to memory of its own.

    A product with a single column is summed in an order that depends on where in memory the column begins, and that of
    weights in a file is anywhere: the same model would give other last digits where it was read than where it was made.
    """
    _, output = output_layer(model, 1)
    if output is not None:
        with torch.no_grad():
            output.weight.data = output.weight.data.clone()


def _reorder(output: nn.Linear, order: Sequence[int]) -> None:
    with torch.no_grad():
        output.weight.copy_(output.weight[list(order)].clone())
        if output.bias is not None:
            output.bias.copy_(output.bias[list(order)].clone())
