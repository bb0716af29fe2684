"""The adaptive stage: attacks that bypass what hides the gradients of a network.

`find_way_round` inspects the network, chooses the attacks and the functions to attack in its place, and returns the
outcomes. It is told nothing about how the network was made.
"""

from sanity.adaptive.outcome import Adaptive, Attempt
from sanity.adaptive.ways import find_way_round

__all__ = ["Adaptive", "Attempt", "find_way_round"]
