"""The text task: its scores by another way, its samples, its recipes."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from numpy_char_rnn import CharRNN

from elman import DataError, OptionError
from elman.checkpoint import RunFolder
from elman.console import Report
from elman.data.stdlib import standard_library
from elman.task.language import LanguageModel, choose, stateful_loss, window_loss, write
from elman.task.networks import CELLS
from elman.task.options import SampleOptions
from elman.task.text import Text
from elman.task.text_options import RECIPES, Options
from elman.train.optimizers import make_optimizer
from elman.train.training import Training

SMALL = dict(hidden=12, embedding=5, batch=4, window=8, steps=3)


def small_model(layers=2, embedding=5):
    torch.manual_seed(0)
    return LanguageModel(7, CELLS["lstm"], 9, layers, embedding, 0.3)


def by_hand(model, ids):
    """Nats per symbol, one symbol at a time, the state carried."""
    model.eval()
    total, state = 0.0, None
    for a, b in pairwise(ids):
        logits, state = model(a.view(1, 1), state)
        total += F.cross_entropy(logits[0], b.view(1)).item()
    return total / (len(ids) - 1)


@pytest.mark.parametrize("n", [2, 256, 257, 258, 700])
def test_the_stateful_score_is_the_text_read_symbol_by_symbol(n):
    model, ids = small_model(), torch.randint(0, 7, (n,))
    told = []
    assert stateful_loss(model, ids, tick=told.append) == pytest.approx(by_hand(model, ids), rel=1e-5)
    assert sum(told) == n - 1


def test_the_score_in_streams_is_each_piece_from_an_empty_context():
    model, ids = small_model(), torch.randint(0, 7, (601,))
    pieces = [by_hand(model, ids[i * 200 : (i + 1) * 200 + 1]) for i in range(3)]
    assert stateful_loss(model, ids, 3) == pytest.approx(sum(pieces) / 3, rel=1e-5)


def test_the_window_score_is_each_window_from_an_empty_context():
    model, ids = small_model(), torch.randint(0, 7, (256 * 3 + 100,))
    want = sum(by_hand(model, ids[i * 256 : (i + 1) * 256 + 1]) for i in range(3)) / 3
    assert window_loss(model, ids) == pytest.approx(want, rel=1e-5)
    assert window_loss(model, ids[:256]) is None
    assert window_loss(model, ids[:257]) is not None


def test_scoring_uses_no_dropout_and_leaves_training_as_it_was():
    model, ids = small_model().train(), torch.randint(0, 7, (300,))
    assert stateful_loss(model, ids) == stateful_loss(model, ids)
    assert model.training


def test_one_hot_input_is_a_column_of_U():
    torch.manual_seed(0)
    model = LanguageModel(7, CELLS["elman"], 9, 1, 0, 0.0)
    cell = model.recurrent.layers()[0].cell
    logits, state = model(torch.tensor([[3]]))
    h = torch.tanh(cell.U.weight[:, 3] + cell.U.bias)
    torch.testing.assert_close(state[0].h[0], h)
    torch.testing.assert_close(logits[0, 0], model.output(h))


def test_greedy_writing_takes_the_most_probable_symbol():
    model = small_model().eval()
    ids = torch.tensor([1, 2, 3])
    for _ in range(10):
        ids = torch.cat([ids, model(ids[:, None])[0][-1, 0].argmax().view(1)])
    assert list(write(model, ids[:3], 10, 0.0, None, 5)) == ids[3:].tolist()


def test_samples_follow_the_distribution():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    draw = torch.Generator().manual_seed(0)
    for temperature, k in ((1.0, None), (0.5, None), (2.0, 2)):
        seen = (
            torch.bincount(torch.stack([choose(logits, temperature, k, draw) for _ in range(4000)]), minlength=4) / 4000
        )
        kept = logits if k is None else logits.where(logits >= logits.topk(k).values[-1], torch.tensor(-math.inf))
        want = (kept / temperature).softmax(-1)
        assert (seen - want).abs().max() < 0.03


def test_very_small_temperatures_are_greedy_not_nan():
    assert choose(torch.tensor([0.0, 5.0, 4.9]), 1e-9, None, torch.Generator()) == 1


def test_the_default_split_is_the_last_tenth(text_file):
    task = Text(Options(files=(str(text_file),), **SMALL))
    n = len(text_file.read_text())
    assert len(task.training) == int(n * 0.9)
    assert len(task.training) + len(task.validation) == n
    assert task.vocabulary.decode(task.validation) == text_file.read_text()[int(n * 0.9) :]


def test_truncated_bptt_carries_the_state_without_its_gradient(text_file):
    task = Text(Options(files=(str(text_file),), **SMALL))
    one = task.loss(0, task.initial())
    two = task.loss(1, one.state)
    assert not any(value.requires_grad for layer in one.state for value in layer)
    x = torch.cat([task._streams[0][0], task._streams[1][0]])
    y = torch.cat([task._streams[0][1], task._streams[1][1]])
    logits, state = task.model(x)
    assert F.cross_entropy(logits.flatten(0, 1), y.flatten()).item() == pytest.approx(
        (one.value + two.value) / 2, rel=1e-5
    )
    torch.testing.assert_close(two.state[0].c, state[0].c)
    again = task.loss(task.batches, two.state)  # a new epoch begins with a fresh state
    assert again.value == one.value


def test_streams_that_begin_anew_are_drawn_row_by_row(text_file):
    torch.manual_seed(0)
    task = Text(Options(files=(str(text_file),), **{**SMALL, "batch": 16}, reset=0.5))
    before, rows = task.loss(0, task.initial()).state, torch.get_rng_state()
    after = task.loss(1, before).state
    torch.set_rng_state(rows)
    anew = torch.rand(16, 1)[:, 0] < 0.5
    assert 0 < int(anew.sum()) < 16
    x = task._streams[1][0]
    for at_hand, wanted in ((~anew, task.model(x, before)[1]), (anew, task.model(x)[1])):
        torch.testing.assert_close(after[0].c[at_hand], wanted[0].c[at_hand])
        torch.testing.assert_close(after[0].h[at_hand], wanted[0].h[at_hand])


def test_min_char_rnn_is_the_recipe():
    o = RECIPES["min-char-rnn"].options
    assert (o.cell, o.layers, o.hidden, o.window, o.batch, o.embedding, o.start) == ("elman", 1, 100, 25, 1, 0, 0.01)
    assert (o.optimizer, o.rate, o.schedule, o.warmup, o.decay) == ("adagrad", 0.1, "constant", 0, 0.0)
    assert (o.clip_norm, o.clip_value, o.loss, o.smoothing) == (None, 5.0, "window", 0.999)
    assert (o.sample_every, o.sample_length, o.validation) == (100, 200, 0.0)


def test_min_char_rnn_smooths_its_loss_from_that_of_a_uniform_guess(text_file):
    task = Text(replace(RECIPES["min-char-rnn"].options, files=(str(text_file),)))
    V = len(set(text_file.read_text()))
    run = Training(task, RunFolder.create(None, "text"), Report())
    assert 25 * run.smoothed == pytest.approx(-25 * math.log(1 / V))
    nats = run.advance()["train"]
    assert run.smoothed == pytest.approx(0.999 * math.log(V) + 0.001 * nats)
    assert f"-25 ln(1/{V}) = {25 * math.log(V):.2f}" in task.about()["loss"]


def test_min_char_rnn_takes_the_steps_of_its_equations(text_file):
    """Ten steps of the recipe, against the published equations in numpy."""
    options = replace(RECIPES["min-char-rnn"].options, files=(str(text_file),), steps=10)
    task = Text(options)
    task.model.double()
    cell, head = task.model.recurrent.layers()[0].cell, task.model.output
    theirs = CharRNN(cell.U.weight, cell.W.weight, cell.U.bias, head.weight, head.bias)
    optimizer, state = make_optimizer(task.model, options), task.model.initial(1)
    for k in range(10):
        loss = task.loss(k, state)
        state = loss.state
        optimizer.zero_grad()
        loss.objective.backward()
        torch.nn.utils.clip_grad_value_(task.model.parameters(), options.clip_value)
        optimizer.step()
        x, y = task._streams[k]
        assert loss.value * 25 == pytest.approx(theirs.step(x[:, 0].numpy(), y[:, 0].numpy()), rel=1e-6)
    # Adagrad divides a gradient by its own size: where terms cancel, the order of a sum is seen, and processors differ
    torch.testing.assert_close(cell.W.weight.detach(), torch.from_numpy(theirs.p["W"]), rtol=1e-6, atol=1e-7)


def test_options_that_cannot_be():
    for words, change in {
        "--hidden 0: must be at least 1": {"hidden": 0},
        "--validation 1.0: must be below 1": {"validation": 1.0},
        "--dropout -0.1: must be at least 0": {"dropout": -0.1},
        "--reset 1.0: must be below 1": {"reset": 1.0},
        "--rate nan: must be at least 0": {"rate": math.nan},
        "--clip-norm 0": {"clip_norm": 0.0},
    }.items():
        with pytest.raises(OptionError, match=words):
            Options(**change)


def test_a_text_shorter_than_a_window(text_file):
    text_file.write_text("short\n")
    with pytest.raises(DataError, match=r"the text is too short: training has 5 symbols.* needs 33"):
        Text(Options(files=(str(text_file),), **SMALL))


def test_prompts_and_temperatures_that_cannot_be(text_file):
    task = Text(Options(files=(str(text_file),), **SMALL))
    with pytest.raises(DataError, match="does not have 'Z'"):
        task.write(SampleOptions(prompt="Z"))
    for temperature in (-1.0, math.nan, math.inf):
        with pytest.raises(OptionError, match="--temperature"):
            task.write(SampleOptions(temperature=temperature))
    with pytest.raises(OptionError, match="--top-k 0"):
        task.write(SampleOptions(top_k=0))
    with pytest.raises(OptionError, match="--length 0"):
        task.write(SampleOptions(length=0))


def test_words_and_bytes_train_too(text_file):
    for level, unit in (("word", "word"), ("byte", "byte")):
        task = Text(Options(files=(str(text_file),), level=level, words=10, **SMALL))
        assert task.unit == unit
        assert task.loss(0, task.initial()).value == pytest.approx(task.guess, rel=0.2)
        assert len("".join(task.write(SampleOptions(length=20)))) > 0


def test_tied_embeddings_are_one_table(text_file):
    task = Text(Options(files=(str(text_file),), tied=True, locked=True, weight_dropout=0.2, layers=2, **SMALL))
    names = dict(task.model.named_parameters())
    assert "output.weight" not in names
    assert task.model.recurrent.initial(3)[-1].h.shape == (3, SMALL["embedding"])
    loss = task.loss(0, task.initial())
    loss.objective.backward()
    assert all(p.grad.abs().max() > 0 for p in names.values())
    x, _ = task._streams[0]
    task.model.eval()
    logits, _ = task.model(x)
    y, _ = task.model.recurrent(task.model.embedding(x))
    torch.testing.assert_close(logits, y @ names["embedding.weight"].T + names["output.bias"])
    assert len("".join(task.write(SampleOptions(length=20)))) == 20
    with pytest.raises(OptionError, match="--embedding 0 makes none"):
        Options(tied=True, embedding=0)


def test_lines_in_a_random_order_are_the_same_lines(text_file):
    text = "".join(f"line {i}\n" for i in range(60)) + "and a rest"
    text_file.write_text(text)
    options = {**SMALL, "files": (str(text_file),)}
    one, two = (Text(Options(**options, shuffle=True, seed=seed)) for seed in (0, 1))
    read = [task.vocabulary.decode(task._ids) for task in (one, two)]
    assert read[0] != read[1] != text
    for found in read:
        assert sorted(found.splitlines()) == sorted(text.splitlines())
        assert found.endswith("and a rest")
    assert Text(Options(**options, shuffle=True)).data == one.data != Text(Options(**options)).data


def test_the_standard_library_is_the_default_text():
    task = Text(Options(**SMALL))
    assert f"{len(standard_library())} files" in task.about()["data"]
    assert len(task.vocabulary) < 110


def test_a_model_learns_shakespeare_a_little(tinyshakespeare):
    """Sixty steps on the real file take the loss well below that of counting characters, 3.3 nats."""
    options = Options(files=(str(tinyshakespeare),), hidden=64, embedding=16, batch=32, window=32)
    task = Text(options)
    optimizer, state = torch.optim.Adam(task.model.parameters(), 0.01), task.initial()
    for k in range(60):
        loss = task.loss(k, state)
        state = loss.state
        optimizer.zero_grad()
        loss.objective.backward()
        optimizer.step()
    assert task.guess == pytest.approx(math.log(65))
    assert loss.value < 2.7
