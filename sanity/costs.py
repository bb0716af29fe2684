"""What checks cost, in gradients of an image, and how many of these a network takes in a second."""

import time
from collections.abc import Callable

from sanity import measure
from sanity.settings import Settings
from sanity.subject import Subject

FORWARD = 1 / 3  # of a gradient
# By the name of a check: gradients of an image at most, beside what other checks have left. A check that is not named
# here counts as one run of PGD.
GRADIENTS: dict[str, Callable[[Settings], float]] = {
    "network_is_deterministic": lambda settings: 5 * FORWARD,
    "gradients_are_available": lambda settings: settings.steps + 2.0,
    "gradient_magnitude": lambda settings: settings.steps,
    "iterative_beats_single_step": lambda settings: settings.steps + 1.0,
    "loss_rises_with_epsilon": lambda settings: 4 * settings.ascent_steps + 11.0,
    "loss_surface_is_smooth": lambda settings: 20.0,
    "white_box_beats_black_box": lambda settings: 2.0 * settings.steps,
    "larger_epsilon_is_stronger": lambda settings: 5.0 * settings.steps,
    "large_epsilon_reaches_chance": lambda settings: 0.0,
    "step_count_saturates": lambda settings: 1.8 * settings.most_steps,
    "adaptive_attack_is_not_stronger": lambda settings: (
        (settings.restarts + 13 + settings.fab_targets) * settings.steps + 100.0 + settings.queries * FORWARD
    ),
    # The second look is at the images that Square fools: few.
    "gradient_free_is_not_stronger": lambda settings: settings.queries * FORWARD,
    "random_search_is_not_stronger": lambda settings: settings.points * FORWARD,
    "second_opinion": lambda settings: 2.0 * settings.steps,
    "decision_boundary_binarization": lambda settings: 500 * FORWARD + settings.steps,
    "attack_does_not_fail": lambda settings: settings.steps + 100 * FORWARD,
    "nuclear_norm_separates": lambda settings: 0.0,
}
MOST = {"second_opinion": "slow_images", "decision_boundary_binarization": "planted_images"}  # settings


def of_attack(keywords: dict) -> float:
    """Returns how many gradients of an image an attack with these keywords takes at most."""
    if "queries" in keywords:
        return keywords["queries"] * FORWARD
    return float(keywords.get("steps", 1) * keywords.get("restarts", 1) * keywords.get("targets", 1))


def per_second(subject: Subject) -> float:
    """Returns how many gradients of an image the network takes in a second; the first ones, which compile, left out."""
    size = min(subject.batch_size, len(subject))
    sample = subject.images[:size], subject.labels[:size]
    measure.gradients.at(subject.network, *sample, batch_size=size)
    began = time.perf_counter()
    measure.gradients.at(subject.network, *sample, batch_size=size)
    return size / max(time.perf_counter() - began, 1e-9)


def of_check(name: str, images: int, settings: Settings) -> float:
    """Returns how many gradients of an image a check takes for so many images, at most."""
    if name in MOST:
        images = min(images, getattr(settings, MOST[name]))
    return GRADIENTS.get(name, lambda settings: settings.steps)(settings) * images
