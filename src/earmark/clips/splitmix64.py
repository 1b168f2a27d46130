"""SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), for integers of python and for tensors.

Beside the path of a sample: the seeds of samples and what is drawn from them on the device come from here. Integer
arithmetic is the same on any device, in any version of any library.
"""

import torch
from torch import Tensor

__all__ = ["below", "mixed", "random_integers", "unit"]

_INCREMENT = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_MASK_64 = (1 << 64) - 1


def mixed(state: int) -> int:
    """Return the next output of the generator in a 64-bit state: a bijection that mixes all bits.

    Example:
        >>> hex(mixed(0))
        '0xe220a8397b1dcdaf'
    """
    value = (state + _INCREMENT) & _MASK_64
    value = ((value ^ (value >> _SHIFTS[0])) * _MULTIPLIERS[0]) & _MASK_64
    value = ((value ^ (value >> _SHIFTS[1])) * _MULTIPLIERS[1]) & _MASK_64
    return value ^ (value >> _SHIFTS[2])


def random_integers(seed: Tensor, *, num_draws: int, stream: int = 0) -> Tensor:
    """Return `num_draws` independent draws for each seed, uniform in [0, 2^31).

    A stream's own state is the seed's draw of that number.

    Args:
        seed: int64 (B,).
        num_draws: Draws per seed.
        stream: Number of an independent sequence, from 0.

    Returns:
        int64 (B, num_draws).

    Example:
        >>> random_integers(torch.tensor([1, 2, 1]), num_draws=2)
        tensor([[ 790680964, 2026288756],
                [ 842278439,  181916518],
                [ 790680964, 2026288756]])
    """
    # filled on the device: a number sent there from the host would be waited for
    state = _draws(seed, torch.full((), stream, dtype=torch.int64, device=seed.device))
    return _shift_right(_draws(state[:, None], torch.arange(num_draws, device=seed.device)), 33)


def below(draws: Tensor, limit: Tensor | int) -> Tensor:
    """Turn draws of `random_integers` into integers in [0, limit).

    Example:
        >>> below(torch.tensor([0, 2**30, 2**31 - 1]), 5)
        tensor([0, 2, 4])
    """
    return draws * limit >> 31


def unit(draws: Tensor) -> Tensor:
    """Turn draws of `random_integers` into float64 in [0, 1), exactly.

    Example:
        >>> unit(torch.tensor([0, 2**30]))
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    return draws.double() / 2**31


def _draws(state: Tensor, draw: Tensor) -> Tensor:
    """Return the given draws, from 0, of the generators in the given states; all int64, wrapping around."""
    z = state + (draw + 1) * _signed(_INCREMENT)
    z = (z ^ _shift_right(z, _SHIFTS[0])) * _signed(_MULTIPLIERS[0])
    z = (z ^ _shift_right(z, _SHIFTS[1])) * _signed(_MULTIPLIERS[1])
    return z ^ _shift_right(z, _SHIFTS[2])


def _signed(value: int) -> int:
    return value - (1 << 64)


def _shift_right(values: Tensor, num_bits: int) -> Tensor:
    """Shift as if unsigned: torch's own shift drags the sign along."""
    return (values >> num_bits) & ((1 << (64 - num_bits)) - 1)
