"""The time budget of a judgement."""

import time


class Clock:
    """A time budget.

    Args:
        seconds: the budget, from now on; None for no limit.
        slow_seconds: the budget for a slow network, at least `seconds`; None for the same.

    Attributes:
        seconds: the current budget; infinite without a limit.
        speed: image gradients that the network computes per second; infinite until measured.
        reserved: share of the budget, in [0, 1), that is reserved for later stages and does not count as left.

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
        """Seconds since the start."""
        return time.monotonic() - self._begun

    @property
    def left(self) -> float:
        """Remaining seconds; negative if the budget is exceeded, infinite without a limit."""
        return self.seconds * (1.0 - self.reserved) - self.spent

    def extend(self) -> None:
        """Raises the budget to that for a slow network."""
        self.seconds = max(self.seconds, self._slow_seconds)

    def has_time_for(self, gradients: float) -> bool:
        """Returns whether this number of image gradients fits into the remaining time."""
        return self.left > 0.0 and gradients / self.speed <= self.left
