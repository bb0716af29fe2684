"""The adaptive stage: where a network hides its gradients, attacks that go round what hides them.

`find_way_round` looks at what the network does, chooses by that what to attack in its place and how, and says what is
left. It is told nothing of how the network was made.
"""

from sanity.adaptive.outcome import Adaptive, Attempt
from sanity.adaptive.ways import find_way_round

__all__ = ["Adaptive", "Attempt", "find_way_round"]
