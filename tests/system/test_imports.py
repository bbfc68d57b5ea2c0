"""What a run imports, and that nothing of it is missing where it is asked for."""

import subprocess
import sys

from conftest import Workshop, flag_words, ranks

# A rank ends by os._exit: nothing else sees what it had imported by then.
REPORT = """
import os, sys
end = os._exit
def report(code):
    print("IMPORTED", *sorted(sys.modules), flush=True)
    end(code)
os._exit = report
from ringtune.train.cli import main
main()
"""
# Text generation, compilers, torch.distributed and scipy's optimizers, as transformers imports them by itself.
UNUSED = (
    "datasets",
    "scipy",
    "sympy",
    "torch._dynamo.eval_frame",
    "torch._inductor",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
)


def test_a_fine_tune_of_a_csv_file_imports_no_compiler_and_no_library_of_data_sets(workshop: Workshop, tmp_path):
    flags = flag_words(
        {
            "model_name_or_path": workshop.model,
            "train_file": workshop.rows,
            "output_dir": tmp_path / "run",
            "max_steps": 2,
            "global_batch_size": 8,
            "mode": "exact",
            "do_eval": "false",
        }
    )
    done = ranks(0, "-c", REPORT, *flags)
    assert done.returncode == 0, done.output
    imported = next(line.split() for line in done.output.splitlines() if line.startswith("IMPORTED"))
    assert "transformers.modeling_utils" in imported
    assert not set(UNUSED) & set(imported)


def test_what_asks_for_the_compiler_gets_it():
    program = """
import torch
from ringtune.train.imports import leave_out_unused
leave_out_unused()
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(model.parameters())
assert type(torch._dynamo).__name__ == "StandIn"
seen = []
def backend(graph, inputs):
    seen.append(graph)
    return graph.forward
twice = torch.compile(lambda x: x * 2, backend=backend)
assert twice(torch.ones(2)).tolist() == [2.0, 2.0]
assert seen and type(torch._dynamo).__name__ == "module"
model(torch.ones(2)).sum().backward()
optimizer.step()
from transformers import BertForSequenceClassification
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)


def test_the_classes_of_transformers_are_the_same_read_once_or_twice():
    program = """
from pathlib import Path
from ringtune.train.imports import leave_out_unused
from transformers.utils import import_utils
define = import_utils.define_import_structure
leave_out_unused()
import transformers
assert import_utils.define_import_structure is not define
models = str(Path(transformers.__file__).parent / "models" / "__init__.py")
assert import_utils.define_import_structure(models) == define(models)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
