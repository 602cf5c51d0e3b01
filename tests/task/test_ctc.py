"""Connectionist temporal classification against all paths, one by one."""

import math
from collections import defaultdict
from itertools import groupby, product

import pytest
import torch
import torch.nn.functional as F

from elman.task.ctc import aligned, frames_needed, greedy, prefix_beam
from elman.task.fusion import TextFusion
from elman.task.language import LanguageModel
from elman.task.networks import CELLS

BLANK = 2


def all_paths(log_p):
    """Each path through log_p (T, K), what it says, and its log p."""
    for path in product(range(log_p.shape[1]), repeat=len(log_p)):
        said = tuple(k for k, _ in groupby(path) if k != BLANK)
        yield path, said, sum(float(log_p[t, k]) for t, k in enumerate(path))


def random_frames(T, seed):
    return F.log_softmax(2 * torch.randn(T, BLANK + 1, generator=torch.Generator().manual_seed(seed)), -1)


def sums(log_p):
    found = defaultdict(float)
    for _, said, value in all_paths(log_p):
        found[said] += math.exp(value)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_what_all_paths_together_say(seed):
    log_p = random_frames(6, seed)
    p = sums(log_p)
    assert p[tuple(prefix_beam(log_p, BLANK, 1000))] == pytest.approx(max(p.values()))


def test_greedy_is_the_best_path_and_a_beam_may_find_better():
    better = 0
    for seed in range(12):
        log_p = random_frames(6, seed)
        path = max(all_paths(log_p), key=lambda found: found[2])
        assert greedy(log_p, BLANK) == list(path[1])
        p = sums(log_p)
        one, beam = p[tuple(greedy(log_p, BLANK))], p[tuple(prefix_beam(log_p, BLANK, 8))]
        assert beam >= one - 1e-9
        better += beam > one + 1e-6
    assert better


@pytest.mark.parametrize("ids", [[0], [0, 1], [1, 1], [0, 0, 1], []])
def test_frames_needed_are_the_fewest_with_a_path(ids):
    lengths = [T for T in range(1, 7) if tuple(ids) in sums(random_frames(T, 0))]
    assert max(1, frames_needed(ids)) == lengths[0]


@pytest.mark.parametrize("ids", [[0], [0, 1], [1, 1], [0, 0, 1], [1, 0, 1]])
def test_symbols_are_where_the_best_path_that_says_them_has_them(ids):
    for seed in range(5):
        log_p = random_frames(6, seed)
        path = max((f for f in all_paths(log_p) if f[1] == tuple(ids)), key=lambda f: f[2])[0]
        runs = [(k, [t for t, _ in run]) for k, run in groupby(enumerate(path), key=lambda pair: pair[1])]
        assert aligned(log_p, ids, BLANK) == [(ts[0], ts[-1] + 1) for k, ts in runs if k != BLANK]


def test_too_few_frames_say_nothing():
    assert aligned(random_frames(2, 0), [1, 1], BLANK) == []
    assert aligned(random_frames(2, 0), [], BLANK) == []


def test_a_text_model_weighs_whole_texts():
    """The best of all texts by p(heard) times p(text)^weight times a bonus, each found on its own."""
    torch.manual_seed(0)
    model = LanguageModel(4, CELLS["gru"], 6, 2, 3, 0.0).eval()
    numbers, end, weight, bonus = [3, 1], 0, 1.5, 0.4

    def text_log_p(said):
        ids = torch.tensor([end, *(numbers[k] for k in said)])
        log_p = F.log_softmax(model(ids[:, None])[0][:, 0], -1)
        return sum(float(log_p[t, k]) for t, k in enumerate([*ids[1:].tolist(), end]))

    changed = 0
    with torch.no_grad():
        for seed in range(6):
            log_p = random_frames(5, seed)
            p = sums(log_p)
            want = max(p, key=lambda said: math.log(p[said]) + weight * text_log_p(said) + bonus * len(said))
            assert prefix_beam(log_p, BLANK, 200, TextFusion(model, numbers, end, weight, bonus)) == list(want)
            changed += list(want) != prefix_beam(log_p, BLANK, 200)
    assert changed
