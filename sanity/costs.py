"""The cost of checks and attacks in image gradients, and the speed of a network in image gradients per second."""

import time
from collections.abc import Callable

from sanity import measure
from sanity.settings import Settings
from sanity.subject import Subject

FORWARD = 1 / 3  # cost of a forward pass, in gradients
# The most gradients per image that each check adds to what other checks have already computed. A check that is missing
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
    # Without the second look, at the few images that Square fools.
    "gradient_free_is_not_stronger": lambda settings: settings.queries * FORWARD,
    "random_search_is_not_stronger": lambda settings: settings.points * FORWARD,
    "second_opinion": lambda settings: 2.0 * settings.steps,
    "decision_boundary_binarization": lambda settings: 500 * FORWARD + settings.steps,
    "attack_does_not_fail": lambda settings: settings.steps + 100 * FORWARD,
    "nuclear_norm_separates": lambda settings: 0.0,
}
# The settings that limit the number of images of a check.
MOST = {"second_opinion": "slow_images", "decision_boundary_binarization": "planted_images"}


def of_attack(keywords: dict) -> float:
    """Returns the most gradients per image that an attack with these keywords computes."""
    if "queries" in keywords:
        return keywords["queries"] * FORWARD
    return float(keywords.get("steps", 1) * keywords.get("restarts", 1) * keywords.get("targets", 1))


def per_second(subject: Subject) -> float:
    """Returns the number of image gradients that the network computes per second, without compilation."""
    size = min(subject.batch_size, len(subject))
    sample = subject.images[:size], subject.labels[:size]
    measure.gradients.at(subject.network, *sample, batch_size=size)
    began = time.perf_counter()
    measure.gradients.at(subject.network, *sample, batch_size=size)
    return size / max(time.perf_counter() - began, 1e-9)


def of_check(name: str, images: int, settings: Settings) -> float:
    """Returns the most image gradients that a check computes for this number of images."""
    if name in MOST:
        images = min(images, getattr(settings, MOST[name]))
    return GRADIENTS.get(name, lambda settings: settings.steps)(settings) * images


def of_search(subject: Subject, settings: Settings) -> float:
    """Returns the most image gradients that `gradient_free_is_not_stronger` computes after PGD, which is run for this.

    Square is run on the images that PGD leaves, and on none twice.
    """
    left = subject.correct("pgd", **settings.pgd(subject.epsilon))
    square = {"epsilon": subject.epsilon, "queries": settings.queries}
    return of_attack(square) * subject.not_attacked("square", among=left, **square)
