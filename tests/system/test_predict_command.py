"""``ringtune-predict``, started as a user starts it, and its function for Python."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import usage
from conftest import predict, ranks, run_command, script
from ringtune.launch.verify import rank_environment
from ringtune.train.predict import predict as rows_of

pytestmark = pytest.mark.system
CLI = ("-m", "ringtune.train.predict.cli")


@pytest.fixture
def rows(tmp_path):
    """Three rows that can be used, and two that cannot."""
    path = tmp_path / "rows.jsonl"
    lines = [
        b'{"text": "the film was good", "label": "LABEL_1", "id": 1}',
        b'{"text": 7, "id": 2}',
        b'{"text": "a dull plot", "label": "LABEL_0", "id": 3}',
        b'{"text": "b\xe4d", "id": 4}',
        b'{"text": "the cast", "label": "LABEL_0", "id": 5}',
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def usage_error(done) -> str:
    return usage.usage_error(done, "ringtune-predict")


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_unusable_rows_come_out_in_their_places_and_are_counted(workshop, rows, tmp_path):
    output, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    done = predict(2, workshop.model, rows, output, keep_columns="id", report=report, text_column_names="text")
    assert done.returncode == 0, done.output
    found = read_jsonl(output)
    assert [row.get("id") for row in found] == [1, 2, 3, None, 5]  # of a line that is not UTF-8 nothing is known
    assert [sorted(row) for row in found] == [
        ["id", "label", "probability_LABEL_0", "probability_LABEL_1"] if number in (0, 2, 4) else ["error", "id"]
        for number in range(5)
    ]
    assert found[1]["error"] == "column 'text' holds 7, not text"
    assert "5 rows, 2 with an error" in done.output and "the first row with an error is " in done.output
    assert f"{rows}:2: column 'text' holds 7" in done.output
    facts = json.loads(report.read_text())
    assert (facts["num_rows"], facts["num_errors"], facts["scores"]["num_rows"]) == (5, 2, 3)
    assert sum(each["num_rows"] for each in facts["ranks"]) == 5
    assert set(facts["ranks"][0]["seconds"]) == {"reading", "tokenising", "computing", "writing", "waiting"}
    assert "true / predicted" in done.output and "accuracy" in done.output
    assert "rows/s" in done.output and "100%" in done.output  # progress
    assert "2 rows without a label that the model knows, or with an error, do not count" in done.output


def test_a_metric_that_failed_is_corrected_and_nothing_is_predicted_again(workshop, rows, tmp_path):
    output, mine, columns = tmp_path / "out.jsonl", tmp_path / "mine.py", {"text_column_names": "text"}
    mine.write_text("def cost(labels, predictions): return 1 if len(labels) > 3 else {}[0]\n")
    done = predict(0, workshop.model, rows, output, metrics=f"{mine}:cost", **columns)
    assert "it fails on 3 rows: KeyError" in (line := usage_error(done))
    assert line.endswith("; correct it; the same command scores what is predicted already")
    mine.write_text("def cost(labels, predictions): return 1\n")
    done = predict(0, workshop.model, rows, output, metrics=f"{mine}:cost", **columns)
    assert done.returncode == 0 and "5 rows are predicted already" in done.output and "cost 1.0000" in done.output


def test_on_error_stop_names_the_line_stops_all_ranks_and_leaves_nothing(workshop, rows, tmp_path):
    done = predict(3, workshop.model, rows, tmp_path / "out.jsonl", on_error="stop", text_column_names="text")
    assert f"{rows}:2: column 'text' holds 7, not text; " in usage_error(done)
    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl"]


def test_python_gives_the_rows_that_the_command_writes(workshop, tmp_path):
    output = tmp_path / "out.jsonl"
    assert predict(2, workshop.model, workshop.rows, output, keep_columns="all").returncode == 0
    for threads in (1, 2):
        assert list(rows_of(workshop.model, workshop.rows, keep_columns="all", num_threads=threads)) == read_jsonl(
            output
        )


def test_csv_parquet_and_jsonl_say_the_same_and_kept_columns_give_way_to_predictions(workshop, tmp_path):
    found = {}
    for ending in ("jsonl", "csv", "parquet"):
        output = tmp_path / f"out.{ending}"
        done = predict(0, workshop.model, workshop.rows, output, keep_columns="text,label", bf16="false")
        assert done.returncode == 0, done.output
    found["jsonl"] = read_jsonl(tmp_path / "out.jsonl")
    with (tmp_path / "out.csv").open(newline="") as stream:
        found["csv"] = list(csv.DictReader(stream))
    found["parquet"] = pq.read_table(tmp_path / "out.parquet").to_pylist()
    with workshop.rows.open(newline="") as stream:
        inputs = list(csv.DictReader(stream))
    for number, row in enumerate(inputs):
        ours, as_csv, as_parquet = (found[name][number] for name in ("jsonl", "csv", "parquet"))
        assert (ours["text"], ours["input_label"]) == (row["text"], row["label"])
        assert as_csv == {name: str(value) for name, value in ours.items()} | {"error": ""}
        assert {name: as_parquet[name] for name in ("text", "input_label", "label", "error")} == {
            **{name: ours[name] for name in ("text", "input_label", "label")},
            "error": None,
        }
        assert as_parquet["probability_LABEL_1"] == pytest.approx(ours["probability_LABEL_1"], abs=1e-7)
        assert ours["probability_LABEL_0"] + ours["probability_LABEL_1"] == pytest.approx(1)
    assert len(inputs) == len(found["jsonl"]) == len(found["csv"]) == len(found["parquet"])


def test_top_k_gives_the_best_classes_best_first(workshop):
    every, one, many = (list(rows_of(workshop.model, workshop.rows, top_k=top_k)) for top_k in (None, 1, 9))
    assert len(every) == len(one) == len(many) == 101
    for full, best, ranked in zip(every, one, many, strict=True):
        assert best == {"label": full["label"], "probability": full[f"probability_{full['label']}"]}
        assert list(ranked) == ["label", "probability", "label_2", "probability_2"]
        assert ranked["probability"] >= ranked["probability_2"] == full[f"probability_{ranked['label_2']}"]


def test_a_regression_gives_values_and_trainings_scores(workshop, tmp_path):
    ratings = tmp_path / "ratings.csv"
    lines = workshop.rows.read_text().splitlines()[1:]
    ratings.write_text("text,label\n" + "".join(f"{line.split(',')[0]},{0.25 * (len(line) % 7)}\n" for line in lines))
    done = workshop.train(2, tmp_path / "run", train_file=ratings, validation_file=ratings, bf16="true")
    assert done.returncode == 0, done.output
    trained = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    done = predict(
        2, tmp_path / "run" / "checkpoint-12", ratings, tmp_path / "out.jsonl", report=tmp_path / "report.json"
    )
    assert done.returncode == 0, done.output
    assert "a number; bf16" in done.output  # taken over from the run, as are the batches
    scores = json.loads((tmp_path / "report.json").read_text())["scores"]
    assert {f"eval_{name}": value for name, value in scores.items()} == {
        name: value for name, value in trained.items() if name.startswith("eval_")
    }
    assert all(list(row) == ["value"] for row in read_jsonl(tmp_path / "out.jsonl"))


def test_stdin_a_data_set_folder_and_a_file_give_the_same_bytes(workshop, tmp_path):
    texts = ["a warm film", "the odd plot", "good"]
    (tmp_path / "rows.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"text": texts}), tmp_path / "set" / "test.parquet")
    words = [script("ringtune-predict"), "--model_name_or_path", str(workshop.model)]
    for name, more in (("file", [str(tmp_path / "rows.txt")]), ("set", [str(tmp_path / "set")])):
        done = run_command([*words, "--output", str(tmp_path / f"{name}.jsonl"), "--input", *more])
        assert done.returncode == 0, done.output
    for name, launcher in (("stdin", []), ("ranks", [script("horovodrun"), "--gloo", "-np", "2"])):
        with (tmp_path / "rows.txt").open() as stream:
            done = subprocess.run(
                [
                    *launcher,
                    *words,
                    "--output",
                    str(tmp_path / f"{name}.jsonl"),
                    "--input",
                    "-",
                    "--input_format",
                    "text",
                ],
                env=rank_environment(os.environ),
                stdin=stream,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        assert done.returncode == 0, done.stderr
    assert len({(tmp_path / f"{name}.jsonl").read_bytes() for name in ("file", "set", "stdin", "ranks")}) == 1
    done = predict(2, workshop.model, "-", tmp_path / "mpirun.jsonl", input_format="text")
    assert "--input -: under mpirun stdin has no end" in usage_error(done)


def test_the_columns_of_the_training_are_read_whatever_stands_beside_them(workshop, reference, tmp_path):
    """Trained on ``text``: an ``author`` before it is not read, and an input without ``text`` is refused."""
    trained, expected = reference(1), tmp_path / "expected.jsonl"
    assert predict(0, trained, workshop.rows, expected).returncode == 0
    more, other = tmp_path / "more.csv", tmp_path / "other.csv"
    texts = [line.split(",")[0] for line in workshop.rows.read_text().splitlines()[1:]]
    more.write_text("author,text\n" + "".join(f"the awful {number},{text}\n" for number, text in enumerate(texts)))
    other.write_text("author,review\n" + "".join(f"somebody,{text}\n" for text in texts))
    done = predict(2, trained, more, tmp_path / "out.jsonl")
    assert done.returncode == 0 and "text: column text; no label; not read: author" in done.output, done.output
    assert (tmp_path / "out.jsonl").read_bytes() == expected.read_bytes()
    message = usage_error(predict(2, trained, other, tmp_path / "none.jsonl"))
    assert (
        "no column 'text', which the model was trained on; it has author, review" in message
        and not (tmp_path / "none.jsonl").exists()
    )


def test_a_whole_chunk_of_unusable_rows_and_values_of_any_kind_are_written_as_parquet(workshop, tmp_path):
    lines = [{"text": number if number < 512 else "a film", "more": {"n": number}} for number in range(600)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = predict(
        2,
        workshop.model,
        tmp_path / "rows.jsonl",
        tmp_path / "out.parquet",
        keep_columns="all",
        text_column_names="text",
    )
    assert done.returncode == 0, done.output
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [json.loads(row["more"]) for row in found] == [line["more"] for line in lines]
    assert [row["error"] is None for row in found] == [row["label"] is not None for row in found]
    assert [row["error"] is None for row in found] == [number >= 512 for number in range(600)]


def test_another_model_input_or_setting_is_refused_by_name_and_the_parts_are_kept(workshop, reference, tmp_path):
    output = tmp_path / "out.jsonl"
    assert predict(1, workshop.model, workshop.rows, output, fault=("stop", "1", "0")).returncode == 75
    folder = tmp_path / "out.jsonl.parts"
    before = sorted(each.name for each in folder.iterdir())
    done = predict(2, reference(1), workshop.rows, output)
    assert "the model has changed since this was begun" in usage_error(done)
    assert "the input has changed since this was begun" in usage_error(predict(0, workshop.model, workshop.dev, output))
    done = predict(0, workshop.model, workshop.rows, output, top_k=1)
    assert "--top_k: 1 is not what the run to be resumed has, None" in usage_error(done)
    assert sorted(each.name for each in folder.iterdir()) == before
    assert predict(0, workshop.model, workshop.dev, output, overwrite_output="true").returncode == 0
    assert len(read_jsonl(output)) == 37 and not folder.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"input": "none.csv"}, "--input none.csv: there is no such file"),
        ({"input": "-"}, "stdin has no ending to take its format from"),
        ({"output": "out.xls"}, "the ending .xls is not known; .jsonl, .csv, .parquet"),
        ({"top_k": 0}, "--top_k: 0 is too few"),
        ({"max_seq_length": 65}, "65 is more than the model takes; at most 64"),
        ({"keep_columns": "txt"}, "there is no column 'txt'"),
        ({"report": "none/report.json"}, "its folder does not exist"),
        ({"outptu": "x"}, "nearest is output"),
        ({"model_name_or_path": "none"}, "no such folder, and the hub gave no model"),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_nothing(workshop, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = {"model": workshop.model, "rows": workshop.rows, "output": tmp_path / "out.jsonl"}
    settings |= {
        {"input": "rows", "model_name_or_path": "model"}.get(name, name): value for name, value in flags.items()
    }
    assert message in usage_error(predict(0, **settings))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_never_trained_to_classify_is_refused(workshop, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertModel

    BertModel(BertConfig.from_pretrained(workshop.model)).save_pretrained(tmp_path / "bare")
    AutoTokenizer.from_pretrained(workshop.model).save_pretrained(tmp_path / "bare")
    done = predict(2, tmp_path / "bare", workshop.rows, tmp_path / "out.jsonl")
    assert "classifier.bias is not in it (2 tensors): it was not trained to classify" in usage_error(done)


def test_a_dry_run_checks_everything_and_writes_nothing(workshop, tmp_path):
    words = ["--model_name_or_path", workshop.model, "--input", workshop.rows, "--output", tmp_path / "out.jsonl"]
    done = ranks(2, *CLI, *map(str, words), "--dry_run")
    assert done.returncode == 0, done.output
    assert "classes LABEL_0, LABEL_1" in done.output and "text: column text; label: column label" in done.output
    assert list(tmp_path.iterdir()) == []


def test_help_completion_and_configuration_are_printed_at_once():
    command = script("ringtune-predict")
    assert "--batch_tokens" in run_command([command, "--help"]).output
    assert "complete" in run_command([command, "--print_completion", "shtab-bash"]).output
    flags = ["--model_name_or_path", "m", "--input", "a.csv", "--output", "b.csv"]
    assert "on_error: keep" in run_command([command, *flags, "--print_config"]).output
    code = (
        "import sys\nfrom ringtune.train.predict import config as p\n"
        "try: p.parse(['--inptu', '1'])\nexcept p.UsageError as e: print(e)\n"
        "print({'torch', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nearest is input" in done.stdout and done.stdout.endswith("set()\n"), done.stdout
