"""Random number generators of somebody's data set: those that are not the process's, which are restored."""

from __future__ import annotations

import contextlib
import copy
import pickle
import random
from typing import Any

import numpy as np
import torch

from vitrine.datamodules.normalization_search import reachable

OWN_GENERATOR = "your data set has a random number generator of its own, which reading images would advance"
_KINDS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)


def own_generators(*places: Any) -> list[Any]:
    """The generators in these places and within them, but for the process's own."""
    shared = (random._inst, np.random.mtrand._rand, torch.default_generator)  # captured and restored
    return [
        thing
        for thing in reachable(places)
        if isinstance(thing, _KINDS) and not any(thing is one for one in shared)
    ]


def generator_states(generators: list[Any]) -> list[bytes]:
    """What the next numbers of generators depend on, to be compared."""
    return [_state(generator) for generator in generators]


def stream_apart(data_set: Any) -> Any:
    """A stream that can be read without leaving training less, or other random numbers: a copy if need be.

    Raises:
        ValueError: it can be read only once.
    """
    once = iter(data_set) is data_set
    if not once and not own_generators(data_set):
        return data_set
    try:
        return copy.deepcopy(data_set)
    except TypeError as error:
        if not once:
            return data_set
        raise ValueError(f"data: {type(data_set).__name__} can be read only once ({error})") from error


def _state(generator: Any) -> bytes:
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().tobytes()
    if isinstance(generator, np.random.Generator):
        return pickle.dumps(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return pickle.dumps(generator.get_state())
    with contextlib.suppress(NotImplementedError):  # the operating system's, which has none
        return pickle.dumps(generator.getstate())
    return b""
