"""Estimates the accuracy on all test images from a slow attack on a sample, and quicker attacks on all images.

    python -m recipes.two_phase --card results/mnist_nuat/nuat_1/card.json

A sample may happen to be easier than the whole. Quicker attacks on all images show by how much, so the estimate can
correct for it. It is the worst-case accuracy over all of these attacks, on all images: the share of all images that
withstands the quicker attacks, which is known, times the share of these in the sample that also withstands the slow
attack. Its interval is Wilson's for the second share, times the first. Attacks beyond the run's threat model do not
count.

Reads the evaluations of `tf_nuat.evaluate` beside the card, on all test images and with `--samples`. Writes
two_phase.json beside each evaluation of a sample; `recipes.leaderboard` then shows it beside the claim for the slow
attack. Rerun the command when there are new evaluations.

Source: double sampling, Neyman, "Contribution to the theory of sampling human populations", 1938.
"""

import numpy as np
from absl import flags

from recipes import table
from recipes.pages import evaluations, ranking
from tf_nuat import command_line, data, evaluate
from tf_nuat.core import files
from tf_nuat.data import datasets
from tf_nuat.evaluate import inputs


def flag_values():
    """Returns the flags of this command, not yet parsed."""
    values = flags.FlagValues()
    flags.DEFINE_string("card", None, "card.json of a run with evaluations beside it; required", flag_values=values)
    flags.DEFINE_string(
        "dataset",
        None,
        "whose test images they are; to be given where the card names a function, or a path elsewhere (default: that "
        "of the card)",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir", None, "where the datasets are (default: TFDS_DATA_DIR, else that of TFDS)", flag_values=values
    )
    return values


def main(arguments):
    """Writes the estimates; returns the exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    command_line.require(values, card="card.json of a run with evaluations beside it (--card FILE)")
    for path, content in estimates(values.card, values.data_dir, values.dataset).items():
        files.save_json(content, path)
        print(f"{path}: {table.percent(content['accuracy'], content['interval'])}")
    return 0


def estimates(path, data_dir=None, dataset=None):
    """Returns the estimates for the run whose card is at `path`, a dict of the file to write to its content.

    Raises:
        ValueError: no attack was evaluated on all test images, or none on a sample, or the sample is of other images;
            or `dataset` is not given, and the card names a function, or a path elsewhere.
    """
    run, outcomes = evaluations.card_with(path)
    dataset = inputs.dataset_of_run(dataset, run, path)
    labels = _labels(dataset, run, data_dir)
    whole = {name: found for name, (_, found) in outcomes.items() if len(found) == len(labels)}
    of_all = {name: found for name, found in whole.items() if name != "clean" and ranking.is_within(name, run)}
    found = [(each, each.sample) for each in evaluations.beside(path, run)]
    of_samples = [(each, sample) for each, sample in found if sample and sample[2] < len(labels)]
    if not of_all or not of_samples:
        raise ValueError(
            f"card is {str(path)!r}, beside which {len(of_all)} attacks were evaluated on all {len(labels)} test "
            f"images and {len(of_samples)} on a sample of them, image by image; allowed: at least one of each"
        )
    clean = whole.get("clean", np.ones(len(labels), bool))
    withstood = np.logical_and.reduce(list(of_all.values()))
    written = {}
    for each, (_, seed, count) in of_samples:
        chosen, robust = data.stratified(labels, count, seed=seed), each.robust()
        if robust is None or np.any(robust & ~clean[chosen]):
            raise ValueError(f"record of {str(each.folder)!r} is not of {count} images of {dataset}; allowed: that")
        written[each.folder / evaluations.ESTIMATE] = {
            "attacks_on_sample": each.name,
            "attacks_on_all": sorted(of_all),
            **estimate(withstood, chosen, robust),
        }
    return written


def _labels(dataset, run, data_dir):
    """Returns the labels of all test images, integers (N,), without reading the images, which may be many."""
    options = run.data_options if data.reads_files(dataset) else {}
    options = {name: options[name] for name in ("input_shape", "corrupt") if name in options}
    return datasets.one_split(dataset, "test", data_dir=data_dir, **options).labels("test")


def estimate(withstood, chosen, robust):
    """Returns the estimated worst-case accuracy on all N images, from a slow attack on n of them, a dict to write.

    Args:
        withstood: which of all images withstand the quick attacks, bool (N,).
        chosen: which images the slow attack got, integers (n,) below N, each once.
        robust: which of these withstand it, bool (n,).

    Raises:
        ValueError: images withstand the quick attacks, but none of the sample does.
    """
    left, first = robust[withstood[chosen]], float(np.mean(withstood))
    if first and not len(left):
        raise ValueError("sample has no image that withstands the attacks on all; allowed: at least one")
    among = max(1, len(left))  # if no image withstands the quick attacks, the accuracy is 0
    low, high = evaluate.wilson(int(left.sum()), among)
    return {
        "images": len(withstood),
        "withstood_those_on_all": int(withstood.sum()),
        "of_these_in_sample": len(left),
        "of_these_withstood_both": int(left.sum()),
        "accuracy": first * float(left.sum() / among),
        "interval": [first * low, first * high],
    }


if __name__ == "__main__":
    command_line.main(main)
