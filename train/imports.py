"""What transformers imports and a rank never uses, left out: a third of the CPU time of a start.

``import`` of any model of transformers 5.23 brings text generation, torch.distributed's tensors, torch's compiler with
sympy, and scipy's optimizers for object detection. None of it takes part in a run: Horovod reduces, nothing is
generated or compiled. What is left out here computes nothing, so no result depends on it, and whatever does ask for
the compiler gets the real one.
"""

from __future__ import annotations

import importlib
import importlib.util
import operator
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

#: What transformers takes from torch's compiler to build attention masks.
ALONE = "torch._dynamo._trace_wrapped_higher_order_op"
#: Questions of transformers whose answer decides what its modules import; "no" is an answer that it is made for.
QUESTIONS = ("is_torch_distributed_available", "is_scipy_available")


def leave_out_unused() -> None:
    """Let torch and transformers import no more than a rank uses, from now on in this process.

    To be called before a model class is imported; what is imported already stays as it is.
    """
    for name, known in STAND_INS.items():
        if name not in sys.modules:
            _put_in_place(StandIn(name, known))
    _import_alone(ALONE)
    _leave_out_drawing()
    import transformers.utils
    from transformers.utils import import_utils

    for name in QUESTIONS:
        for module in (import_utils, transformers.utils):
            if hasattr(module, name):
                setattr(module, name, _no)
    found = _read_models_once(import_utils.define_import_structure)
    import_utils.define_import_structure = found  # type: ignore[assignment]


def _read_models_once(define: Callable[..., Any]) -> Callable[..., Any]:
    """Return what finds out which classes a folder of transformers has, by reading all its files: of models only once.

    transformers does so with the prefix "models" when it is imported, which ``define`` remembers, and again without.
    """
    import transformers

    models = Path(transformers.__file__).parent / "models"

    def of_folder(path: Any, prefix: str | None = None) -> Any:
        if prefix is not None or Path(path) != models / "__init__.py":
            return define(path, prefix=prefix)
        found = define(models, prefix="models")
        return {needs: _without_prefix(names, "models.") for needs, names in found.items()}

    return of_folder


def _without_prefix(named: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return what is named with a prefix, without it. The top package adds names of its own to what it has found."""
    return {name.removeprefix(prefix): each for name, each in named.items() if name.startswith(prefix)}


def _leave_out_drawing() -> None:
    """Let no embedding without memory draw its weights: for the shape of nothing torch would import sympy."""
    from torch.nn import Embedding

    draw = Embedding.reset_parameters

    def draw_if_there(self: Embedding) -> None:
        if not self.weight.is_meta:
            draw(self)

    Embedding.reset_parameters = draw_if_there  # type: ignore[method-assign]


def _as_it_is(function: Any = None, *_: object, **__: object) -> Any:
    """Return a function as it is, or the decorator that does."""
    return function if function is not None else _as_it_is


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""


def _no() -> bool:
    return False


#: Modules that are imported for these attributes alone, and what the attributes are while nothing is compiled.
STAND_INS: Mapping[str, Mapping[str, Any]] = {
    "torch._dynamo": {
        "allow_in_graph": _as_it_is,  # transformers marks functions with these
        "assume_constant_result": _as_it_is,
        "disable": _as_it_is,
        "graph_break": _nothing,  # every step of an optimizer
    },
    "torch.fx.experimental.symbolic_shapes": {  # torch's checks of shapes, which hold no symbols
        **dict.fromkeys(("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious"), bool),
        "is_nested_int": lambda size: isinstance(size, torch.SymInt) and size.node.is_nested_int(),
        "sym_eq": operator.eq,
    },
}


class StandIn(ModuleType):
    """Stands for a module while only its known attributes are used.

    The first use of any other, or of a submodule, imports the module, which then takes this place.
    """

    def __init__(self, name: str, known: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__spec__ = importlib.util.find_spec(name)
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        is_package = self.__spec__ is not None and self.__spec__.submodule_search_locations is not None
        # Others of these names are asked of every module by those who look through all of them.
        if name.startswith("__") and not (name == "__path__" and is_package):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _put_in_place(module: ModuleType) -> None:
    parent, _, name = module.__name__.rpartition(".")
    sys.modules[module.__name__] = module
    setattr(importlib.import_module(parent), name, module)


def _import_alone(name: str) -> None:
    """Import a submodule of a package that a stand-in stands for, and not the package."""
    package = sys.modules[name.rpartition(".")[0]]
    if not isinstance(package, StandIn) or package.__spec__ is None:
        return
    spec = PathFinder.find_spec(name, package.__spec__.submodule_search_locations)
    if spec is not None and spec.loader is not None and name not in sys.modules:
        module = importlib.util.module_from_spec(spec)
        _put_in_place(module)
        spec.loader.exec_module(module)
