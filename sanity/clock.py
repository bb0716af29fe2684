"""How much time is left for a judgement."""

import time


class Clock:
    """Time that runs out.

    Args:
        seconds: how many there are from now on; None for no limit.
        slow_seconds: how many there are for a network that is slow, at least `seconds`; None for no more.

    Attributes:
        seconds: infinite without a limit.
        speed: gradients of an image that the network takes in a second; infinite where nobody has measured it.
        reserved: share of the time, in [0, 1), that is kept for what comes later, and does not count as left.

    Example:
        >>> Clock(60.0).has_time_for(gradients=1000), Clock(0.0).has_time_for(gradients=1000)
        (True, False)
    """

    def __init__(self, seconds: float | None = None, slow_seconds: float | None = None) -> None:
        self._begun = time.monotonic()
        self.seconds = float("inf") if seconds is None else float(seconds)
        self._slow_seconds = self.seconds if slow_seconds is None else float(slow_seconds)
        self.speed = float("inf")
        self.reserved = 0.0

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._begun

    @property
    def left(self) -> float:
        """Seconds that are left, below 0 where there are none, infinite without a limit."""
        return self.seconds * (1.0 - self.reserved) - self.spent

    def extend(self) -> None:
        """Gives the time that there is for a network that is slow."""
        self.seconds = max(self.seconds, self._slow_seconds)

    def has_time_for(self, gradients: float) -> bool:
        """Returns whether so many gradients of an image fit into what is left."""
        return self.left > 0.0 and gradients / self.speed <= self.left
