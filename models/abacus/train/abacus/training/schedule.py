"""How training changes with its progress, which runs from 0 to 1: pure functions."""

import random

# The share of closed heads rises to its target between these.
CLOSING_FROM = 0.10
CLOSING_OVER = 0.30


def learning_rate(progress: float, step: int) -> float:
    """Factor of the learning rate: warm-up, constant, then linearly down to 1 %."""
    warm_steps, hold, floor = 100, 0.45, 0.01
    if step < warm_steps:
        return (step + 1) / warm_steps
    if progress < hold:
        return 1.0
    return max(floor, 1.0 - (1 - floor) * (progress - hold) / (1 - hold))


def closed_target(progress: float, final: float) -> float:
    """The share of heads that should be closed."""
    return final * min(1.0, max(0.0, (progress - CLOSING_FROM) / CLOSING_OVER))


def draw_threshold(rng: random.Random) -> float:
    """The gate threshold of a step: mostly the model's 0.3, so that others work too."""
    x = rng.random()
    if x < 0.7:
        return 0.3
    return 0.0 if x < 0.85 else rng.uniform(0.2, 0.5)


def bias_step(progress: float) -> float:
    """How far a step moves the routers' balancing biases."""
    return 1e-3 if progress < 0.9 else 2e-4
