"""What `recipes.phase_transition` says of its results: the estimates, their cost, and advice."""


def report(recipe, attack, found):
    """Returns the lines that say what was found, with the times of both ways and the advice."""
    lines = []
    for way in ("fast", "exact"):
        if way not in found:
            continue
        measured = found[way]
        same = way == "fast" and "exact" in found and _are_comparable(measured, found["exact"])
        for clean in () if same else measured.clean:  # the exact way shows it
            lines.append(
                f"ordinary training: loss {clean.train_loss:.4g} on training images, {clean.test_loss:.4g} on "
                f"{clean.test_images} test images, accuracy {clean.test_accuracy:.2%}, {clean.seconds:.0f} s"
            )
        what = f"fine-tuning with {attack}" if way == "fast" else "training from the start"
        estimate = measured.estimate
        interval = "one run, no interval"
        if estimate.low is not None:
            interval = f"95 %: {255 * estimate.low:.3g} to {255 * estimate.high:.3g}, of {len(estimate.each)} runs"
        lines.append(
            f"{way} ({what} at {len(measured.epsilons)} epsilons): epsilon* {255 * estimate.epsilon:.3g}/255 = "
            f"{estimate.epsilon:.3g} ({interval}), {measured.seconds:.0f} s"
        )
    if {"fast", "exact"} <= set(found) and _are_comparable(fast := found["fast"], exact := found["exact"]):
        lines.append(
            f"fast / exact: {fast.estimate.epsilon / exact.estimate.epsilon:.2f}; time saved "
            f"{1 - fast.seconds / exact.seconds:.0%}"
        )
    if "single_step" in found:
        lines.append(_single_step(found["single_step"]))
    if estimates := [found[way].estimate for way in ("exact", "fast") if way in found]:
        lines.append(advice(recipe.epsilon, estimates[0].epsilon))
    return lines


def _are_comparable(fast, exact):
    """Returns whether both ways have the same clean network and as many images; separate commands may differ."""
    clean, other = ([each.network for each in way.clean[:1]] for way in (fast, exact))
    return clean == other and fast.loss_images == exact.loss_images


def advice(epsilon, critical):
    """Returns advice for training with `epsilon`, given the critical epsilon, as a sentence."""
    ratio = f"epsilon {epsilon:.3g} is {epsilon / critical:.2g} times the critical {critical:.3g}"
    if epsilon <= critical / 2:
        return (
            f"Advice: {ratio}: adversarial training will behave as ordinary training does; nothing special is needed."
        )
    if epsilon < 2 * critical:
        return f"Advice: {ratio}: adversarial training begins to differ from ordinary training; watch for overfitting."
    return (
        f"Advice: {ratio}: adversarial training will differ from ordinary training; try a wider network, more images "
        "or a loss made for it (TRADES, MART), and watch for overfitting."
    )


def _single_step(found):
    tried = ", ".join(
        f"{255 * epsilon:.3g}/255: {fgsm:.1%} and {pgd:.1%}"
        for epsilon, fgsm, pgd in zip(found.epsilons, found.fgsm, found.pgd)
    )
    unstable = "none of the epsilons" if found.unstable is None else f"{255 * found.unstable:.3g}/255"
    return f"single-step training overfits catastrophically at {unstable} (accuracy under FGSM and PGD-20: {tried})"
