"""Start and end of answers: windows, batches and packing change nothing, and the best spans are the best of all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import questions
import torch
from answering import ROWS, TASK, answerer, batch_of, naive
from families import PIECES, write_sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as some
from ringtune.train.attention import PACKED_TYPES, can_pack, packer_of, take_packed_rows
from ringtune.train.batches import on_device
from ringtune.train.contract import UsageError
from ringtune.train.evaluate import outputs_of
from ringtune.train.step import Precision
from ringtune.train.task import spans
from ringtune.train.task.passages import END, FIRST, LAST, PLACE, START
from ringtune.train.task.question_answering import QuestionAnswering
from tiny import make_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def features(tokenizer):
    return TASK.encode(batch_of(ROWS), tokenizer, 24)


def outcome(model, features, batches: list[list[int]]) -> dict[str, torch.Tensor]:
    """Return what is predicted of all windows, in their order, and the gradients of the sum of their losses."""
    model.zero_grad()
    model.double()
    packer = packer_of(model, CPU, None)
    found = torch.zeros(features.num_features, TASK.width)
    losses = torch.zeros(features.num_features)
    for chosen in batches:
        batch = on_device(TASK.collate(features, chosen, seed=0), packer, CPU)
        output = model(**TASK.inputs(batch))
        found[chosen] = TASK.outputs(output, batch).detach()
        losses[chosen] = TASK.losses(output, batch, 0.1)
    losses.sum().backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"outputs": found, "losses": losses.detach(), **gradients}


@pytest.mark.parametrize("family", [*PACKED_TYPES, "deberta-v2", "mpnet"])
def test_a_window_gives_the_same_answers_alone_and_beside_others(family, features):
    """Packed where the family is, padded where it is not: spans, losses and gradients."""
    more = {"local_attention": 6} if family == "modernbert" else {}
    alone = outcome(answerer(family, **more), features, [[row] for row in range(features.num_features)])
    model = answerer(family, **more)
    if family in PACKED_TYPES:
        assert can_pack(model, reads_first_token=False)
        take_packed_rows(model)
    together = outcome(model, features, [[5, 1, 0], list(range(features.num_features - 1, 5, -1)), [2, 4, 3]])
    assert alone["outputs"][:, 2].std() > 1e-2
    torch.testing.assert_close(together, alone, rtol=2e-5, atol=2e-5)  # losses are fp32


def test_the_loss_is_that_of_transformers(features):
    model = answerer()
    for chosen in ([0, 1, 2], list(range(features.num_features))):
        batch = TASK.collate(features, chosen, seed=0)
        place = batch[PLACE]
        output = model(
            **TASK.inputs(batch),
            start_positions=(place & FIRST > 0).int().argmax(1),
            end_positions=(place & LAST > 0).int().argmax(1),
        )
        mask = batch["attention_mask"].bool()  # transformers counts padding among the tokens
        for name in ("start_logits", "end_logits"):
            output[name] = output[name].masked_fill(~mask, -1e9)
        theirs = (
            torch.nn.functional.cross_entropy(output.start_logits, (place & FIRST > 0).int().argmax(1))
            + torch.nn.functional.cross_entropy(output.end_logits, (place & LAST > 0).int().argmax(1))
        ) / 2
        torch.testing.assert_close(TASK.losses(output, batch, 0.0).mean(), theirs)
        if mask.all():
            torch.testing.assert_close(output.loss, theirs)


def test_copies_of_the_last_token_are_not_part_of_a_window(features):
    """On a CPU in bf16 a packed batch is filled up with copies of its last token."""
    model = answerer()
    take_packed_rows(model)
    for chosen in ([0], [1, 2], [3, 4, 5]):
        found = outputs_of(model, TASK, features, np.array(chosen), Precision(CPU, torch.bfloat16))
        assert found.shape == (len(chosen), TASK.width) and found.isfinite().all()


def test_the_spans_of_a_window_are_the_best_of_all_also_where_some_are_equal(features):
    torch.manual_seed(4)
    for chosen in (range(features.num_features), [0, 3], [1]):
        batch = TASK.collate(features, list(chosen), seed=0)
        shape = batch["input_ids"].shape
        for draw in (torch.randn, lambda shape: torch.randint(0, 3, shape).float()):
            output = type("Output", (), {"start_logits": draw(shape), "end_logits": draw(shape)})
            found = TASK.outputs(output, batch).numpy()
            mask = batch["attention_mask"].bool().numpy()
            for row, numbers in enumerate(found):
                arrays = [output.start_logits, output.end_logits, batch[START], batch[END]]
                wanted = naive(*(each[row].numpy()[mask[row]] for each in arrays))
                mine = [each for each in zip(*np.split(numbers[2:], 3), strict=True) if each[1] >= 0]
                assert np.array(mine) == pytest.approx(np.array(wanted))
                assert numbers[1] == pytest.approx(float(output.start_logits[row, 0] + output.end_logits[row, 0]))


def test_a_window_of_few_tokens_or_none_has_fewer_spans(tokenizer):
    rows = [{"question": "good", "context": text, "answers": {"text": [], "answer_start": []}} for text in ("", "film")]
    found = TASK.encode(batch_of(rows), tokenizer, 24)
    outputs = outputs_of(answerer(), TASK, found, np.arange(2), Precision(CPU, None)).numpy()
    assert np.isfinite(outputs).all()
    assert [len(spans.of_row(outputs[number : number + 1]).spans) for number in range(2)] == [0, 1]
    assert TASK.predict_rows(outputs, found, None)["answer"].to_pylist()[0] == ""


@settings(max_examples=60)
@given(some.data())
def test_the_best_spans_of_a_row_are_those_of_all_its_windows(data):
    scores = some.integers(-3, 3).map(float)
    windows = []
    for _ in range(data.draw(some.integers(1, 3))):
        keys = data.draw(some.lists(some.tuples(some.integers(0, 5), some.integers(6, 9)), max_size=4, unique=True))
        several = sorted(((data.draw(scores), *key) for key in keys), key=lambda each: (-each[0], *each[1:]))
        several += [(0.0, -1, -1)] * (4 - len(several))
        windows.append(
            [0.5, data.draw(scores), *(number for column in zip(*several, strict=True) for number in column)]
        )
    found = spans.of_row(np.array(windows, dtype=np.float32))
    best: dict[tuple, float] = {}
    for window in windows:
        for score, start, end in zip(window[2:6], window[6:10], window[10:14], strict=True):
            if start >= 0:
                best[start, end] = max(score, best.get((start, end), score))
    wanted = sorted(((score, *key) for key, score in best.items()), key=lambda each: (-each[0], *each[1:]))[:4]
    assert [(each.score, each.start, each.end) for each in found.spans] == wanted
    assert found.null == min(window[1] for window in windows)
    assert found.probabilities(with_null=True).sum() == pytest.approx(1)


def test_windows_are_those_of_the_tokenizers_own_stride(tokenizer):
    """As run_qa.py makes them: question and context as a pair, only the second one cut, a stride of tokens."""
    words = ["film", "is", "very", "odd", "plot"] * 13
    # Of each stride a length that fills the last window and one that does not; 19 tokens fill one window.
    for stride, length in itertools.product((0, 3, 9), (18, 19, 20, 29, 35, 38, 65)):
        long = " ".join(words[:length])
        theirs = tokenizer(
            "good film",
            long,
            truncation="only_second",
            max_length=24,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        row = {"question": "good film", "context": long, "answers": {"text": [], "answer_start": []}}
        mine = QuestionAnswering(None, doc_stride=stride).encode(batch_of([row]), tokenizer, 24)
        bounds = zip(mine.offsets[:-1], mine.offsets[1:], strict=True)
        for number, (start, stop) in enumerate(bounds):
            for name in ("input_ids", "token_type_ids"):
                assert mine.token_columns[name][start:stop].tolist() == theirs[name][number]
            places = np.stack([mine.token_columns[name][start:stop] for name in (START, END)], axis=1).tolist()
            of_context = [each == 1 for each in theirs.sequence_ids(number)]
            both = zip(theirs["offset_mapping"][number], of_context, strict=True)
            wanted = [list(each) if inside else [-1, -1] for each, inside in both]
            assert places == wanted
        assert mine.num_features == len(theirs["input_ids"])


def byte_level() -> object:
    """Return a byte-level BPE tokenizer of pairs, as RoBERTa: a piece may begin with a blank or be half a character."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing
    from transformers import PreTrainedTokenizerFast

    found = ByteLevelBPETokenizer()
    found.train_from_iterator([row["context"] for row in questions.rows(50, 1)], 300, show_progress=False)
    found.add_special_tokens(["<s>", "</s>"])
    ids = {name: found.token_to_id(name) for name in ("<s>", "</s>")}
    found._tokenizer.post_processor = RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
    return PreTrainedTokenizerFast(tokenizer_object=found._tokenizer, pad_token="<s>", cls_token="<s>")


@pytest.mark.parametrize("family", [*PIECES, "byte level"])
def test_answers_are_found_by_their_characters_in_any_kind_of_tokenizer(tmp_path, family):
    from transformers import AutoTokenizer

    if family == "byte level":
        own = byte_level()
    else:
        write_sentencepiece(tmp_path, family)
        own = AutoTokenizer.from_pretrained(tmp_path)
    rows = list(questions.rows(30, 1))
    found = TASK.encode(batch_of(rows), own, 40)
    text = " ".join(row["context"] for row in rows)
    assert found.num_features >= 30 and text
    for number, row in enumerate(rows):
        windows = np.flatnonzero(found.row_of == number)
        places = np.concatenate([np.arange(found.offsets[each], found.offsets[each + 1]) for each in windows])
        starts, ends, place = (found.token_columns[name][places] for name in (START, END, PLACE))
        first = starts[(place & FIRST > 0) & (starts >= 0)]
        last = ends[(place & LAST > 0) & (starts >= 0)]
        start = row["answers"]["answer_start"][0]
        assert set(zip(first.tolist(), last.tolist(), strict=True)) == {(start, start + len(row["answers"]["text"][0]))}
        shown = {row["context"][a:b] for a, b in zip(starts, ends, strict=True) if a >= 0}
        assert not any(each != each.strip() for each in shown)


def test_a_tokenizer_that_does_not_say_where_its_pieces_stand_is_refused():
    slow = type("Slow", (), {"is_fast": False})()
    with pytest.raises(UsageError, match="does not say which characters a piece stands for; a model with a fast"):
        TASK.encode(batch_of(ROWS[:1]), slow, 24)
