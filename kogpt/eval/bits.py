"""Nats of a text -> bits for each of its characters: what training and evaluation both report. Arithmetic only."""

import math


def per_char(nats: float, chars: int) -> float:
    """Total surprise of a text in nats, over the characters of the original, as bits."""
    return nats / math.log(2) / chars
