"""The checks: functions `(subject, settings) -> Result`, each of which looks for one sign of masked gradients.

`subject` is a `sanity.subject.Subject`, `settings` a `sanity.settings.Settings`. A check neither prints nor changes the
network. It fails only where the sign is significant; where the sample is too small to rule the sign out it is
inconclusive; where it does not apply it is skipped.
"""

from sanity.checks.large_epsilon_reaches_chance import large_epsilon_reaches_chance
from sanity.checks.larger_epsilon_is_stronger import larger_epsilon_is_stronger
from sanity.checks.step_count_saturates import step_count_saturates
from sanity.checks.white_box_beats_black_box import white_box_beats_black_box

CHECKS = {
    "white_box_beats_black_box": white_box_beats_black_box,
    "larger_epsilon_is_stronger": larger_epsilon_is_stronger,
    "large_epsilon_reaches_chance": large_epsilon_reaches_chance,
    "step_count_saturates": step_count_saturates,
}
