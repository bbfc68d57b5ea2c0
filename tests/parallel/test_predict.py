"""Predictions do not depend on who computes them, nor on what happened meanwhile."""

from __future__ import annotations

import csv
import json
import random
import sys
from itertools import islice
from pathlib import Path

import pytest
from conftest import predict, ranks, records, run_command, script
from ringtune.launch.demo import MIXED_FILE, fetch
from ringtune.train import chunks
from ringtune.train.contract import cache_folder
from tiny import write_rows

pytestmark = pytest.mark.parallel
COUNTER_FACTS = str(Path(__file__).parent / "counter_facts.py")
NUM_REVIEWS = 10_000
NUM_MANY = 20_000


@pytest.fixture(scope="session")
def reviews(make_once):
    """The first 10,000 of the four sets of real texts, mixed."""

    def write(folder):
        source = fetch(cache_folder()) / MIXED_FILE
        with source.open(newline="") as read, (folder / "reviews.csv").open("w", newline="") as written:
            csv.writer(written).writerows(islice(csv.reader(read), NUM_REVIEWS + 1))

    return make_once("reviews", write) / "reviews.csv"


def write_reviewer(folder):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(7)
    demo = fetch(cache_folder()) / "model"
    model = AutoModelForSequenceClassification.from_pretrained(
        demo, num_hidden_layers=1, id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1}
    )
    torch.nn.init.normal_(model.classifier.weight, std=0.5)  # as drawn, all probabilities would be near a half
    tokenizer = AutoTokenizer.from_pretrained(demo)
    with torch.inference_mode():  # centred between two opinions, so that there are rows of each class
        logits = model.eval()(**tokenizer(["a warm film", "a dull plot"], return_tensors="pt", padding=True)).logits
        model.classifier.bias -= logits.mean(dim=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def reviewer(make_once):
    """The first layer of the demo's model, for speed, under a head drawn from a seed."""
    return make_once("reviewer", write_reviewer)


@pytest.fixture(scope="session")
def predicted(reviewer, reviews, make_once):
    """The predictions of all reviews by one rank under mpirun."""

    def run(folder):
        done = predict(1, reviewer, reviews, folder / "one.jsonl", keep_columns="text")
        assert done.returncode == 0, done.output

    return make_once("predicted", run) / "one.jsonl"


@pytest.mark.parametrize(
    ("size", "gloo"),
    [
        (2, False),
        (3, True),
        pytest.param(3, False, marks=pytest.mark.long),
        pytest.param(1, True, marks=pytest.mark.long),
        pytest.param(2, True, marks=pytest.mark.long),
    ],
    ids=["2 mpirun", "3 gloo", "3 mpirun", "1 gloo", "2 gloo"],
)
def test_ten_thousand_real_rows_give_the_same_bytes_at_any_world_size(
    reviewer, reviews, predicted, tmp_path, size, gloo
):
    done = predict(size, reviewer, reviews, tmp_path / "out.jsonl", gloo=gloo, keep_columns="text")
    assert done.returncode == 0, done.output
    assert (tmp_path / "out.jsonl").read_bytes() == predicted.read_bytes()
    assert not (tmp_path / "out.jsonl.parts").exists()


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 6])
def test_predictions_are_those_of_a_transformers_pipeline_row_by_row(reviewer, reviews, predicted, every):
    from transformers import pipeline

    with reviews.open(newline="") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    found = [json.loads(line) for line in predicted.read_text().splitlines()]
    assert [row["text"] for row in found] == texts and len(found) == NUM_REVIEWS
    classify = pipeline("text-classification", str(reviewer), device="cpu", top_k=None)
    expected = classify(texts[::every], batch_size=32, truncation=True, max_length=128)
    for row, scores in zip(found[::every], expected, strict=True):
        by_name = {each["label"]: each["score"] for each in scores}
        assert row["probability_positive"] == pytest.approx(by_name["positive"], abs=2e-5)
        assert row["probability_negative"] == pytest.approx(by_name["negative"], abs=2e-5)
        if abs(by_name["positive"] - 0.5) > 1e-4:
            assert row["label"] == max(by_name, key=by_name.get)
    assert len({row["label"] for row in found}) == 2


@pytest.fixture(scope="session")
def many_rows(make_once):
    return make_once("many", lambda folder: write_rows(folder / "many.csv", NUM_MANY, 3)) / "many.csv"


@pytest.fixture(scope="session")
def whole(workshop, many_rows, make_once):
    """The output of a prediction that nothing disturbed."""

    def run(folder):
        done = predict(0, workshop.model, many_rows, folder / "whole.jsonl", keep_columns="all")
        assert done.returncode == 0, done.output

    return (make_once("whole-prediction", run) / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    "sizes", [(1, 2, 3), pytest.param((1, 2, 3, 1, 2, 1, 3, 2, 1), marks=pytest.mark.long)], ids=len
)
def test_sigkill_at_random_moments_at_changing_world_sizes_changes_not_one_byte(
    workshop, many_rows, whole, tmp_path, sizes
):
    """The first kill comes when a part has just got its name, the last one when the joined output has, so that only
    the parts were still to be removed; those between at a random disk operation or start of a chunk of a random rank.
    """
    draw = random.Random(20141)
    output = tmp_path / "out.jsonl"
    faults = [("kill", str(draw.randint(1, 9)), str(draw.randrange(size))) for size in sizes[1:]]
    for size, fault in zip(sizes, [("kill_at", "part-*"), *faults], strict=True):
        done = predict(size, workshop.model, many_rows, output, fault=fault, keep_columns="all")
        assert done.returncode != 0 and not output.exists(), done.output
    assert 0 < len(list((tmp_path / "out.jsonl.parts").glob("part-*"))) < len(chunks.slices(NUM_MANY))
    done = predict(3, workshop.model, many_rows, output, fault=("kill_at", "out.jsonl"), keep_columns="all")
    assert done.returncode != 0, done.output
    assert output.exists() and (tmp_path / "out.jsonl.parts").exists()
    done = predict(2, workshop.model, many_rows, output, keep_columns="all")
    assert done.returncode == 0 and f"{NUM_MANY} rows are predicted already" in done.output, done.output
    assert output.read_bytes() == whole
    assert not (tmp_path / "out.jsonl.parts").exists()


def test_a_stop_on_any_rank_keeps_the_parts_exits_75_and_goes_on(workshop, many_rows, whole, tmp_path):
    output = tmp_path / "out.jsonl"
    done = predict(2, workshop.model, many_rows, output, fault=("stop", "3", "1"), keep_columns="all")
    assert done.returncode == 75, done.output
    assert "stopped on request; the finished parts are kept" in done.output
    assert list((tmp_path / "out.jsonl.parts").glob("part-*")) and not output.exists()
    assert predict(3, workshop.model, many_rows, output, gloo=True, keep_columns="all").returncode == 0
    assert output.read_bytes() == whole


def test_a_failing_rank_takes_the_job_down_with_its_traceback_once(workshop, many_rows, tmp_path):
    done = predict(3, workshop.model, many_rows, tmp_path / "out.jsonl", fault=("raise", "1", "1"))
    assert done.returncode == 1, done.output
    assert done.output.count("RuntimeError: planted failure") == 1
    assert done.output.count("Traceback") == 1


def test_a_damaged_part_is_named_and_made_again(workshop, many_rows, whole, tmp_path):
    output = tmp_path / "out.jsonl"
    assert predict(1, workshop.model, many_rows, output, fault=("stop", "6", "0"), keep_columns="all").returncode == 75
    part = min((tmp_path / "out.jsonl.parts").glob("part-*"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    done = predict(2, workshop.model, many_rows, output, keep_columns="all")
    assert f"{part.name}: it is not what was written: its sha256 differs" in done.output
    assert output.read_bytes() == whole


def test_the_report_repeats_the_trainings_last_evaluation_to_the_last_digit(workshop, reference, many_rows, tmp_path):
    """Trained and evaluated by two ranks of one thread; predicted by three, and by a killed one of two threads."""
    run = reference(2, validation_file=many_rows, max_steps=12)
    last = records(run, "eval")[-1]
    trained = {name.removeprefix("eval_"): value for name, value in last.items() if name.startswith("eval_")}
    for size, threads in ((3, 1), (0, 2)):
        output, report = tmp_path / f"{size}.csv", tmp_path / f"{size}.json"
        if size == 0:
            assert predict(0, run, many_rows, output, fault=("kill", "20", "0")).returncode != 0
        done = predict(size, run, many_rows, output, report=report, num_threads=threads)
        assert done.returncode == 0, done.output
        scores = json.loads(report.read_text())["scores"]
        assert {name: scores[name] for name in trained if name in scores} == {
            name: value for name, value in trained.items() if name not in ("event", "step")
        }
        counts = scores["confusion_matrix"]["counts"]
        assert sum(map(sum, counts)) == NUM_MANY
        assert (counts[0][0] + counts[1][1]) / NUM_MANY == scores["accuracy"]


@pytest.mark.parametrize("size", [1, 3])
def test_every_number_is_dealt_once_over_mpi(size):
    done = ranks(size, COUNTER_FACTS, "MpiCounter" if size > 1 else "LocalCounter", limit_s=120)
    assert done.output.count("all facts hold") == size, done.output


def test_every_number_is_dealt_once_over_gloo():
    command = [script("horovodrun"), "--gloo", "-np", "3", sys.executable, COUNTER_FACTS, "DealtCounter"]
    done = run_command(command, limit_s=120)
    assert done.output.count("all facts hold") == 3, done.output


@pytest.mark.parametrize(("num_many", "more_mib"), [(60_000, 10), pytest.param(1_000_000, 50, marks=pytest.mark.long)])
def test_many_rows_take_no_more_memory_than_ten_thousand(workshop, tmp_path, num_many, more_mib):
    """Labelled, so that their scores are computed as well, and kept, so that they are written as well."""
    peaks = {}
    for num_rows in (10_000, num_many):
        rows = tmp_path / f"{num_rows}.csv"
        with rows.open("w") as stream:
            stream.write("text,label\n")
            stream.writelines(f"the film {number:06},LABEL_{number % 2}\n" for number in range(num_rows))
        output = tmp_path / f"{num_rows}.jsonl"
        done = predict(2, workshop.model, rows, output, fault=("peak",), max_seq_length=4, keep_columns="text")
        assert done.returncode == 0, done.output
        peaks[num_rows] = [
            int(line.split(": ")[-1].split()[0]) for line in done.output.splitlines() if "peak of rank" in line
        ]
        assert len(peaks[num_rows]) == 2
    with output.open() as stream:  # every row out, once, in order
        assert all(json.loads(line)["text"] == f"the film {number:06}" for number, line in enumerate(stream))
    assert number_of_lines(output) == num_many
    print("peak MiB of any rank", {num_rows: max(each) for num_rows, each in peaks.items()})
    assert max(peaks[num_many]) <= max(peaks[10_000]) + more_mib


def number_of_lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(1 for _ in stream)
