"""A character RNN in numpy, from its equations: the oracle of the min-char-rnn recipe."""

import numpy as np


class CharRNN:
    """h = tanh(U[:, x] + W h + b), o = V h + c; loss summed over a window; gradients cut to +-5; Adagrad at 0.1."""

    def __init__(self, U, W, b, V, c):
        self.p = {name: value.detach().numpy().copy() for name, value in zip("UWbVc", (U, W, b, V, c))}
        self.memory = {name: np.zeros_like(value) for name, value in self.p.items()}
        self.h = np.zeros(len(b))

    def step(self, x, y):
        """One window of inputs and targets: update, carry the state, return the loss summed over the window."""
        p, T = self.p, len(x)
        h, prob, loss = [self.h], [], 0.0
        for t in range(T):
            h.append(np.tanh(p["U"][:, x[t]] + p["W"] @ h[-1] + p["b"]))
            e = np.exp(p["V"] @ h[-1] + p["c"])
            prob.append(e / e.sum())
            loss -= np.log(prob[-1][y[t]])
        d = {name: np.zeros_like(value) for name, value in p.items()}
        later = np.zeros_like(self.h)
        for t in reversed(range(T)):
            do = prob[t].copy()
            do[y[t]] -= 1
            d["V"] += np.outer(do, h[t + 1])
            d["c"] += do
            da = (1 - h[t + 1] ** 2) * (p["V"].T @ do + later)
            d["U"][:, x[t]] += da
            d["W"] += np.outer(da, h[t])
            d["b"] += da
            later = p["W"].T @ da
        self.h = h[-1]
        for name, value in p.items():
            g = d[name].clip(-5, 5)
            self.memory[name] += g * g
            value -= 0.1 * g / np.sqrt(self.memory[name] + 1e-8)
        return loss
