"""Logistic regression for the share of right pairs by what is known of them."""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_STEPS = 100

Numbers: TypeAlias = NDArray[np.float64]


def logistic(value: float) -> float:
    """1 / (1 + exp(-value)), from 0 to 1."""
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, value))))


def regress(inputs: Numbers, is_right: NDArray[np.bool_], weights: Numbers) -> list[float] | None:
    """The slope of each column of ``inputs`` (n, columns), then the intercept; None where there is no solution.

    ``is_right`` and ``weights`` have the shape (n,); right and wrong pairs count the same together. The targets are
    those of Platt (1999, "Probabilistic outputs for support vector machines"), so that pairs without overlap have
    finite slopes.
    """
    right = int(is_right.sum())
    targets = np.where(is_right, (right + 1) / (right + 2), 1 / (right + 2))
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    found = np.zeros(inputs.shape[1])
    for _ in range(_STEPS):  # Newton's method; the loss is convex
        shares = 1 / (1 + np.exp(-np.clip(inputs @ found, -700, 700)))
        gradient = inputs.T @ (weights * (targets - shares))
        curvature = (inputs * (weights * shares * (1 - shares))[:, None]).T @ inputs
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            return None
        found += step * min(1.0, 10 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return found.tolist() if np.isfinite(found).all() else None
