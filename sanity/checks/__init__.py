"""The checks: functions `(subject, settings) -> Result`, each of which looks for one sign of masked gradients.

`subject` is a `sanity.subject.Subject`, `settings` a `sanity.settings.Settings`. A check neither prints nor changes the
network. It fails only if the sign is significant. It is inconclusive if the sample is too small to rule out the sign,
and skipped if it does not apply.
"""

from sanity.checks.adaptive_attack_is_not_stronger import adaptive_attack_is_not_stronger
from sanity.checks.attack_does_not_fail import attack_does_not_fail
from sanity.checks.decision_boundary_binarization import decision_boundary_binarization
from sanity.checks.gradient_free_is_not_stronger import gradient_free_is_not_stronger
from sanity.checks.gradient_magnitude import gradient_magnitude
from sanity.checks.gradients_are_available import gradients_are_available
from sanity.checks.iterative_beats_single_step import iterative_beats_single_step
from sanity.checks.large_epsilon_reaches_chance import large_epsilon_reaches_chance
from sanity.checks.larger_epsilon_is_stronger import larger_epsilon_is_stronger
from sanity.checks.loss_rises_with_epsilon import loss_rises_with_epsilon
from sanity.checks.loss_surface_is_smooth import loss_surface_is_smooth
from sanity.checks.network_is_deterministic import network_is_deterministic
from sanity.checks.nuclear_norm_separates import nuclear_norm_separates
from sanity.checks.random_search_is_not_stronger import random_search_is_not_stronger
from sanity.checks.second_opinion import second_opinion
from sanity.checks.step_count_saturates import step_count_saturates
from sanity.checks.white_box_beats_black_box import white_box_beats_black_box

CHECKS = {
    "network_is_deterministic": network_is_deterministic,
    "gradients_are_available": gradients_are_available,
    "gradient_magnitude": gradient_magnitude,
    "iterative_beats_single_step": iterative_beats_single_step,
    "loss_rises_with_epsilon": loss_rises_with_epsilon,
    "loss_surface_is_smooth": loss_surface_is_smooth,
    "white_box_beats_black_box": white_box_beats_black_box,
    "larger_epsilon_is_stronger": larger_epsilon_is_stronger,
    "large_epsilon_reaches_chance": large_epsilon_reaches_chance,
    "step_count_saturates": step_count_saturates,
    "gradient_free_is_not_stronger": gradient_free_is_not_stronger,
    "random_search_is_not_stronger": random_search_is_not_stronger,
    "decision_boundary_binarization": decision_boundary_binarization,
    "attack_does_not_fail": attack_does_not_fail,
    # These decide nothing about masking, and are left out if there is no time.
    "adaptive_attack_is_not_stronger": adaptive_attack_is_not_stronger,
    "second_opinion": second_opinion,
    "nuclear_norm_separates": nuclear_norm_separates,
}
