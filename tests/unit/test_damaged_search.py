"""A search whose files somebody or something has changed: what is wrong is named, with its file."""

from __future__ import annotations

import math

import pytest
from ringtune.train import results, study, trial
from ringtune.train.contract import FINISHED_FILE, METRICS_FILE, TRIAL_FILE, UsageError

FACTS = {"space": ["learning_rate=1e-5..1e-3:log"], "seed": 7, "pruning": 1}
ENDED_WRONG = (
    "[]",
    "{",
    '{"trial": {}}',
    '{"trial": 5}',
    '{"trial": {"value": "x", "score": "loss", "greater_is_better": true, "pruned": false}}',
    '{"trial": {"value": 1, "score": 5, "greater_is_better": true, "pruned": false}}',
)


@pytest.mark.parametrize("content", ENDED_WRONG)
def test_a_result_of_a_trial_that_no_run_wrote_is_named(tmp_path, content):
    study.Study(tmp_path, FACTS).take(0)
    (tmp_path / "trial=0" / FINISHED_FILE).write_text(content)
    with pytest.raises(UsageError, match=r"trial=0/finished.json: it cannot be read: .*; put it back, or remove it"):
        study.Study(tmp_path).settle()


@pytest.mark.parametrize("value", ['"x"', "[1]", '{"a": 1}', "1" + "0" * 400])
def test_a_score_that_is_no_number_is_named(tmp_path, value):
    (tmp_path / FINISHED_FILE).write_text("{}")
    (tmp_path / METRICS_FILE).write_text(f'{{"event": "eval", "step": 1, "eval_loss": {value}}}\n')
    with pytest.raises(UsageError, match=r"metrics.jsonl: eval_loss of the last evaluation is .*; a number"):
        results.scores_of_run(tmp_path)


def test_scores_that_are_infinite_have_no_deviation():
    (row,) = results.group([({"seed": str(seed)}, {"eval_cost": math.inf}) for seed in (1, 2)])
    assert row.scores["cost"][0] == math.inf and math.isnan(row.scores["cost"][1])


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "1",
        "null",
        "{}",
        '{"op_code":99,"worker_id":"x"}',
        '{"op_code":2,"worker_id":"x","study_id":0,"user_attr":{"facts":{}}}',
        '{"op_code":2,"worker_id":"x","study_id":0,"user_attr":{"facts":5}}',
        '{"op_code":2,"worker_id":"x","study_id":0,"user_attr":{"facts":{"space":[],"seed":1,"pruning":1}}}',
        '{"op_code":2,"worker_id":"x","study_id":0,"user_attr":{"facts":{"space":["a=1,2"],"seed":"x","pruning":1}}}',
    ],
)
def test_a_study_with_a_line_that_is_not_its_own_is_named(tmp_path, line):
    study.Study(tmp_path, FACTS).take(0)
    with (tmp_path / "search" / "journal.log").open("a") as file:
        file.write(line + "\n")
    for facts in (None, FACTS):
        with pytest.raises(UsageError, match=r"journal.log: it cannot be read: .*; put it back, take the damaged line"):
            study.Study(tmp_path, facts)


def test_a_damaged_trial_file_is_named(tmp_path):
    for content in ("{", "[]", '{"number": "x"}', '{"number": 1, "settings": 2}'):
        (tmp_path / TRIAL_FILE).write_text(content)
        with pytest.raises(UsageError, match="it cannot be read"):
            trial.read(tmp_path)
