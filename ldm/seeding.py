"""Random numbers that are a function of what they are for, never of what was drawn before."""

import numpy as np
import torch


def seeded_generator(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on its integers (each >= 0) and the device's kind alone; neighbours are unrelated."""
    word = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(word))
