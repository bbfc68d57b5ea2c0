"""An adapter in a model: peft's layers stand in for some of the model's own, which they call, and are all that learns.

The model stays the transformers model that it was: training, packing, evaluation and prediction know nothing of the
adapter. What is saved of the model is the adapter alone (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language
Models", and what peft has of its kind), with what tells its base from another one.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ringtune.train import adapter_settings, weights
from ringtune.train.adapter_settings import ORIGIN
from ringtune.train.columns import shown_names
from ringtune.train.contract import UsageError, nearest
from ringtune.train.digest import state_digest
from ringtune.train.order import derive_seed
from torch import nn

FILES = (weights.ADAPTER, weights.BASE)
_NAME = "default"  # peft's name of the adapter in the model
_UNUSED = ".original_module."  # of the base, behind the name of a module that peft has copied to be trained
_HEADS = ("classifier", "score", "qa_outputs")  # which peft writes into modules_to_save, whatever the model has
_PLACE = "ringtune_adapter"  # attribute of a model that has one


@dataclass(frozen=True)
class Adapter:
    """The adapter of a model."""

    wrapper: Any  # peft's PeftModel around the model
    network: nn.Module
    base: str  # folder or hub name of the model without it
    base_digest: str  # of the weights of the base that are not trained

    @property
    def settings(self) -> dict[str, Any]:
        """The content of ``adapter_config.json``, the same at every start."""
        found = dict(self.wrapper.peft_config[_NAME].to_dict())
        found |= {"base_model_name_or_path": self.base, "inference_mode": True}
        return {name: sorted(value) if isinstance(value, set) else value for name, value in found.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors of the adapter by their names in its file; they share the model's memory."""
        return _tensors(self.wrapper)

    def restore(self, tensors: Mapping[str, torch.Tensor], where: str, fresh: Collection[str] = ()) -> None:
        """Put saved tensors back. fresh: names that may be missing. Raises UsageError if they are another adapter's."""
        own = self.tensors()
        wrong = [name for name in tensors if name not in own or own[name].shape != tensors[name].shape]
        wrong += [name for name in own if name not in tensors and name not in fresh]
        if wrong:
            raise UsageError(
                where,
                f"it holds another adapter, or that of another model: {min(wrong)} does not fit ({len(wrong)} tensors)",
                legal="the adapter of this model",
                todo="check its adapter_config.json",
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name].copy_(tensor)

    def files(self) -> dict[str, bytes]:
        """Return the files beside the tensors: peft's settings, and which base it is."""
        base = {"name_or_path": self.base, "sha256": self.base_digest}
        contents = (json.dumps(self.settings, indent=2, sort_keys=True), json.dumps(base, indent=1))
        return {name: each.encode() for name, each in zip(FILES, contents, strict=True)}

    def require_base(self, digest: str | None, where: str) -> None:
        """Raise UsageError if the base is not that of a digest. where: what the digest is of."""
        if digest not in (None, self.base_digest):
            raise UsageError(
                where,
                f"the base model {self.base} is not the one that its adapter was trained with: its weights differ",
                legal=f"weights with the digest {str(digest)[:12]}..., of {weights.BASE}; these have "
                f"{self.base_digest[:12]}...",
                todo="put the base back as it was",
            )

    def require_saved(self, checkpoint: Path) -> None:
        """Raise UsageError unless a checkpoint is of an adapter like this one, and of this base."""
        try:
            saved, base = (json.loads((checkpoint / name).read_bytes()) for name in FILES)
        except FileNotFoundError as error:
            raise UsageError(str(checkpoint), f"it holds no adapter: {Path(str(error.filename)).name}") from None
        for name, value in json.loads(json.dumps(self.settings)).items():
            if name not in ORIGIN and saved.get(name) != value:
                raise UsageError(
                    str(checkpoint),
                    f"the run to be resumed has an adapter with {name} {saved.get(name)!r}, now it is {value!r}",
                    legal="the same adapter",
                    todo="set it back, or start a new run with another --output_dir",
                )
        self.require_base(base.get("sha256"), str(checkpoint))

    def merge(self) -> nn.Module:
        """Return the model with the adapter added to its weights, in place: the adapter is gone."""
        from peft.utils import ModulesToSaveWrapper

        whole: nn.Module = self.wrapper.merge_and_unload()
        for name, each in list(whole.named_modules()):
            if isinstance(each, ModulesToSaveWrapper):  # peft 0.21.2 leaves them where LN_TUNING is merged
                whole.set_submodule(name, each.modules_to_save[_NAME])
        whole.__dict__.pop(_PLACE)
        return whole

    def describe(self) -> str:
        """Return in one line what is trained, and what that saves."""
        settings = self.settings
        trained = sum(each.numel() for each in self.network.parameters() if each.requires_grad)
        copied = sum(each.numel() for name, each in self.network.named_parameters() if _UNUSED in name)
        total = sum(each.numel() for each in self.network.parameters()) - copied
        shown = [f"{name} {settings[name]}" for name in ("r", "lora_alpha", "lora_dropout") if settings.get(name)]
        targets = settings.get("target_modules")
        names = sorted({each.rpartition(".")[2] for each in targets}) if isinstance(targets, list) else [str(targets)]
        kind = ", ".join([f"adapter {settings['peft_type'].value}", *shown])
        return (
            f"{kind} on {shown_names(names)}; trained whole: "
            f"{shown_names(_whole(self.network))}; {trained} of {total} parameters are trained, sent and saved "
            f"({trained / total:.2%})"
        )


def require_saved(network: nn.Module, checkpoint: Path) -> None:
    """Raise UsageError if a model has an adapter and a checkpoint is of another one, or of another base."""
    found = of(network)
    if found is not None:
        found.require_saved(checkpoint)


def of(network: nn.Module) -> Adapter | None:
    """Return the adapter of a model, None for one that is trained whole."""
    return getattr(network, "__dict__", {}).get(_PLACE)


def used(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors that a model computes with, of its ``state_dict()``. **Pure.**

    A module that is trained whole lies beside the one of the base, which may have been drawn at random: many bases have
    no head, or one of other classes.
    """
    return {name: each for name, each in state.items() if _UNUSED not in name}


def add(
    network: nn.Module, settings: Mapping[str, Any], base: str, where: str, *, new: Iterable[str] = (), seed: int = 0
) -> Adapter:
    """Put an adapter into a model, in place, and return it; its first values are drawn from the seed.

    settings: as in adapter_config.json. base: the model's folder or hub name. where: who asks for it. new: names of the
    model's weights that its files do not have; their modules are trained whole, as the head is. Raises UsageError.
    """
    config = adapter_settings.build(settings, where, adapter_settings.model_by_class(type(network).__name__))
    import peft  # which is there, or build would have raised
    import torch.distributed.tensor  # peft takes it for imported, as transformers does where nothing is left out

    config.modules_to_save = _unique([*(config.modules_to_save or []), *_head(network), *_parents(new)])
    family = str(getattr(network.config, "model_type", ""))
    if getattr(config, "target_modules", ()) is None and config.peft_type not in adapter_settings.OWN_TARGETS:
        config.target_modules = adapter_settings.TARGETS.get(family)
    _refuse_other_targets(network, getattr(config, "target_modules", None), where)
    before = {name: each.data_ptr() for name, each in network.state_dict().items()}
    torch.manual_seed(derive_seed("adapter", seed))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names of the base, which is named here
            wrapper = peft.get_peft_model(network, config)  # type: ignore[arg-type]
    except Exception as error:  # of many kinds, for layers that are not there or of another kind
        raise adapter_settings.unusable(where, error) from None
    config.modules_to_save = _unique(config.modules_to_save)
    _share_settings(network)
    _require_all_saved(network, wrapper, where)
    found = Adapter(wrapper, network, _absolute(base), state_digest(_of_base(network, wrapper, before)))
    network.__dict__[_PLACE] = found
    return found


def _tensors(wrapper: Any) -> dict[str, torch.Tensor]:
    import peft

    found: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(wrapper, save_embedding_layers=False)
    return found


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _head(network: nn.Module) -> list[str]:
    """Return the modules beside the body that have parameters."""
    body = str(network.base_model_prefix)
    return [name for name, each in network.named_children() if name != body and any(True for _ in each.parameters())]


def _parents(names: Iterable[str]) -> list[str]:
    """Return the modules of the body, such as its pooler, that parameters are of. **Pure.**"""
    return [each for each in ("pooler",) if any(f".{each}." in name for name in names)]


def _whole(network: nn.Module) -> Sequence[str]:
    """Return the names of the modules that are trained whole."""
    return _unique(
        name.partition(".modules_to_save.")[0] for name, _ in network.named_parameters() if ".modules_to_save." in name
    )


def _share_settings(network: nn.Module) -> None:
    """Give modules that peft has copied the model's own configuration, which says how attention is computed."""
    for name, each in network.named_modules():
        if ".modules_to_save." in name and type(getattr(each, "config", None)) is type(network.config):
            each.config = network.config


def _refuse_other_targets(network: nn.Module, targets: Any, where: str) -> None:
    """Raise UsageError for a layer to adapt that is not there: peft passes over it if there are others."""
    if targets is None or isinstance(targets, str):
        return
    for target in _missing(network, sorted(targets)):
        known = sorted(
            {name.rpartition(".")[2] for name, each in network.named_modules() if isinstance(each, nn.Linear)}
        )
        raise UsageError(
            where,
            f"no layer of the model is named {target[:80]!r}",
            legal=f"such as {shown_names(known)}, or {adapter_settings.ALL_LINEAR}",
            todo=nearest(target, known),
        )


def require_modules(network: nn.Module, settings: Mapping[str, Any], where: str) -> None:
    """Raise UsageError for a module to train whole, or to leave out, that a new adapter's model does not have.

    peft passes over it. An adapter that there is already is what its tensors say.
    """
    for setting in ("modules_to_save", "exclude_modules"):
        names = settings.get(setting) or ()
        for name in _missing(network, [] if isinstance(names, str) else names):
            if setting == "modules_to_save" and name in _HEADS:
                continue
            known = sorted({each.rpartition(".")[2] for each, _ in network.named_modules() if each})
            raise UsageError(
                where,
                f"no module of the model is named {name[:80]!r}, of {setting}",
                legal=f"such as {shown_names(known)}",
                todo=nearest(name, known),
            )


def _missing(network: nn.Module, ends: Iterable[str]) -> list[str]:
    """Return which of some names are neither a module's nor the end of one's."""
    names = [f".{name}" for name, _ in network.named_modules() if name]
    return [end for end in ends if not any(name.endswith(f".{end}") for name in names)]


def _require_all_saved(network: nn.Module, wrapper: Any, where: str) -> None:
    """Raise UsageError for an adapter that trains what its file does not hold."""
    saved = {each.data_ptr() for each in _tensors(wrapper).values()}
    lost = [name for name, each in network.named_parameters() if each.requires_grad and each.data_ptr() not in saved]
    if lost:
        raise UsageError(where, f"{lost[0]} would be trained and not saved ({len(lost)} parameters)", legal="LORA")


def _of_base(network: nn.Module, wrapper: Any, before: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Return the tensors of the base that are computed with and not trained, by their names in the base.

    before: where each of its tensors is in memory.
    """
    names = {place: name for name, place in before.items()}
    trained = {each.data_ptr() for each in _tensors(wrapper).values()}
    return {
        names[each.data_ptr()]: each
        for name, each in network.state_dict().items()
        if each.data_ptr() in names and each.data_ptr() not in trained and _UNUSED not in name
    }


def _absolute(base: str) -> str:
    """Return a folder by its whole path, so that it is found from anywhere; a hub name as it is."""
    path = Path(base).expanduser()
    return str(path.absolute()) if path.is_dir() else base
