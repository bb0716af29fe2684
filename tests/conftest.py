"""Settings that must precede TensorFlow's start."""

import collections
import gc
import os
import pathlib
import shutil
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = pathlib.Path(__file__).parents[1]
# Prepared datasets, where they lie beside the checkout. Tests that need them skip, saying why, where they do not.
PREPARED = ROOT.parent / "shared" / "tfds"
if PREPARED.is_dir():
    os.environ.setdefault("TFDS_DATA_DIR", str(PREPARED))

import pytest
import tensorflow as tf
from tensorflow.python.data.ops import dataset_ops
from tensorflow.python.util import tf_stack

from docs import check_package
from tf_nuat import parallel
from tf_nuat.core import keras_compat

# Two logical devices on one processor stand in for two GPUs.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
# Two devices that wait for each other need more threads than this machine may have processors.
tf.config.threading.set_inter_op_parallelism_threads(16)
# Most tests run a graph once or twice: optimizing it takes longer than that saves.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
# Every operation of a graph keeps the Python stack that made it, a hundred frames in a test: a tenth of the time of all
# tests, and a seventh of their memory. No test looks at it, so all have the same one.
stack = tf_stack.extract_stack()
tf_stack.extract_stack = lambda stacklevel=1: stack
# Nor is any dataset tuned, those of Keras included: see `untuned`. The end of a file's tests waited half a minute and
# more for iterators that interrupted trainings leave behind.
dataset_ops.DatasetV2._apply_debug_options = keras_compat.untuned

# Files of few tests that take long. First, so that no worker waits at the end for another one's.
LONG = ("docs/site_test.py", "parallel/multiworker_test.py", "training/backup_test.py", "sanity/zoo_test.py")


# Tests that take seconds and repeat, for one more defense, attack, network or flag, what a quicker one has checked: the
# beginnings of their names. `make test` leaves them out, `make test-all` runs them.
REPEATED = (
    # In two processes, what distribute_test.py has checked on two devices.
    "parallel/multiworker_test.py::test_all_workers_end_with_the_same_weights_and_metrics",
    "parallel/multiworker_test.py::test_two_processes_are_one_with_the_global_batch",
    "parallel/multiworker_test.py::test_two_workers_share_the_images_of_an_evaluation",
    "parallel/multiworker_test.py::test_workers_with_different_seeds_are_told_which",
    "parallel/multiworker_test.py::test_a_worker_in_training_ends_at_a_signal_and_the_other_says_so",
    "parallel/multiworker_test.py::test_a_run_on_two_workers_survives_the_loss_of_one",
    "parallel/multiworker_test.py::test_a_worker_that_waits_says_for_whom_and_can_be_ended",
    "parallel/multiworker_test.py::test_a_worker_that_was_there_and_ended_is_waited_for_no_longer",
    "training/backup_test.py::test_a_run_that_is_killed_within_an_epoch_ends_with_the_same_bits[elle_a]",
    "training/recipe_test.py::test_autoattack_is_a_measure_as_any_other",
    "defenses/sample_weight_test.py::test_weights_of_arrays_datasets_and_generators_train_the_same[nuat_h]",
    "attacks/pool_test.py::test_two_devices_do_what_one_does[apgd_t]",
    "attacks/l1_test.py::test_comes_near_the_optimum_of_a_linear_network[square]",
    # The site without running the notebook, and the notebook alone, are built and run by quicker ones.
    "docs/site_test.py::test_make_builds_the_site_and_runs_the_notebook",
    "benchmarks/peers_benchmark_test.py::test_cleverhans_takes_our_steps",
    "sanity/checks_test.py::test_masked_logits_are_caught_by_transfer",
    "training/backup_test.py::test_a_run_that_is_killed_within_an_epoch_ends_with_the_same_bits[eat]",
    "training/backup_test.py::test_a_run_that_is_killed_within_an_epoch_ends_with_the_same_bits[nuat2_wa]",
    "defenses/saving_test.py::test_training_goes_on_to_the_bit[awp_trades",
    "defenses/saving_test.py::test_training_goes_on_to_the_bit[gat",
    "defenses/sample_weight_test.py::test_weights_of_arrays_datasets_and_generators_train_the_same[sat_r1]",
    "defenses/sample_weight_test.py::test_weights_of_arrays_datasets_and_generators_train_the_same[pgd_at]",
    "defenses/sample_weight_test.py::test_weights_of_classes_are_those_of_their_images[nuat]",
    "critical_epsilon/critical_epsilon_test.py::test_other_losses_and_norms_fine_tune_the_same_clean_network",
    # Of the real images, what others of datasets_test.py have checked of images of noise.
    "data/datasets_test.py::test_prepared_datasets_are_split_as_published",
    "data/datasets_test.py::test_mnist_trains_on_images_as_they_are",
    "critical_epsilon/critical_epsilon_test.py::test_both_ways_agree",
    "critical_epsilon/critical_epsilon_test.py::test_a_second_call_trains_nothing",
    "critical_epsilon/critical_epsilon_test.py::test_a_clean_network_without_a_gap",
    "data/imagenet_test.py::test_a_recipe_trains_and_measures",
    "recipes/custom_test.py::test_a_network_of_ones_own_learns_a_folder_of_ones_own_and_is_judged",
    "recipes/two_phase_test.py::test_the_committed_estimates_are_those_of_the_committed_records[cifar10",
    "sanity/zoo_test.py::test_a_robust_network_is_failed_by_no_check",
    "sanity/zoo_test.py::test_batch_normalization_does_not_pass_for_an_attack_that_fails",
    "sanity/checks_test.py::test_batches_have_the_size_that_the_subject_says",
    "sanity/figures_test.py::test_every_figure_of_plain_data_is_drawn_again_from_its_json",
    "networks/applications_test.py::test_logits_are_those_of_the_network_on_what_keras_preprocesses_before_and_after_"
    "saving[DenseNet121]",
    "benchmarks/peers_benchmark_test.py::test_contestants_measure_in_turns",
    "benchmarks/peers_benchmark_test.py::test_a_contestant_that_ends_is_left_out",
    "evaluate/wiring_test.py::test_a_network_of_ones_own_is_attacked_and_judged_by_its_flag[--network, a f",
    "evaluate/wiring_test.py::test_a_network_of_ones_own_is_attacked_and_judged_by_its_flag[--trust]",
    "data/datasets_test.py::test_cifar10_trains_on_crops_of_its_own_images",
    "evaluate/wiring_test.py::test_a_network_of_ones_own_is_trained_further_by_its_flag[--output]",
    "attacks/cw_test.py::test_comes_within_one_percent_of_the_distance_of_a_curved_network",
    "attacks/l1_test.py::test_apgd_takes_the_steps_of_the_published_algorithm[100]",
)
# Tests of each attack, defense or network, of which `make test` runs every third: most of their code is shared.
EVERY_THIRD = (
    "attacks/attacks_test.py::test_fooled_is_what_predict_answers_wrongly_where_logits_tie[",
    "attacks/l1_test.py::test_comes_near_the_optimum_of_a_linear_network[",
    "attacks/linear_test.py::test_is_in_the_ball_and_in_the_range_of_pixels_and_fools_the_network_or_is_clean[",
    "attacks/linear_test.py::test_fools_the_network_from_the_smallest_distance_on[",
    "attacks/linear_test.py::test_an_image_has_a_result_of_its_own[",
    "attacks/linear_test.py::test_more_restarts_fool_the_same_images_and_more[",
    "attacks/linear_test.py::test_finds_the_nearest_adversary_where_no_epsilon_is_given[",
    "attacks/pgd_test.py::test_takes_the_steps_of_the_algorithm_until_it_has_an_adversary[",
    "attacks/pool_test.py::test_an_image_gets_what_the_attack_alone_gives_it[",
    "defenses/defenses_test.py::test_trains_and_validates[",
    "defenses/defenses_test.py::test_one_hot_labels_train_as_integers_do[",
    "defenses/hooks_test.py::test_a_step_is_made_of_the_hooks[",
    "defenses/hooks_test.py::test_perturb_and_objective_change_nothing[",
    "defenses/keras_surface_test.py::test_every_defense_trains_with_smoothed_labels_or_refuses_them[",
    "defenses/l2_test.py::test_the_step_has_length_epsilon_where_the_box_is_not_in_the_way[",
    "defenses/passes_test.py::test_passes_are_those_of_a_step[",
    "defenses/training_data_test.py::test_a_later_batch_of_another_form_is_named[",
    "defenses/training_data_test.py::test_a_wrong_batch_of_a_generator_stops_training_in_one_line[",
    "defenses/training_data_test.py::test_labels_of_every_kind_train_the_same_network[",
    "draws_test.py::test_an_attack_on_an_image_depends_on_its_number_and_the_seed_alone[",
    "models/precision_test.py::test_every_kind_of_defense_trains_in_16_bits[",
    "networks/networks_test.py::test_default_network_has_the_published_name_size_and_layers[",
    "networks/networks_test.py::test_last_feature_map_has_the_published_size[",
    "networks/networks_test.py::test_outputs_are_logits_which_a_saved_network_has_too[",
    "parallel/distribute_test.py::test_fit_on_two_devices_is_fit_on_one[",
    "recipes/plot_adversaries_test.py::test_the_figure_is_that_of_the_code[",
    "sanity/zoo_test.py::test_a_masked_network_is_flagged_by_a_check_that_is_meant_for_it[",
)


def pytest_collection_modifyitems(items):
    """Puts the tests of `LONG` before the others, and marks those that `make test` leaves out."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))
    seen = collections.Counter()
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        function = name.partition("[")[0] + "["
        seen[function] += function in EVERY_THIRD
        if name.startswith(REPEATED) or (function in EVERY_THIRD and seen[function] % 3 != 1):
            item.add_marker("repeated")


def pytest_collection_finish():
    """Leaves what the imports made, which stays, out of every later search for garbage, and searches more rarely.

    A traced graph is many small objects that refer to each other: by default Python would search them all, over and
    over, while they are in use. `memory_given_back` searches after each file.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="module", autouse=True)
def memory_given_back():
    """Forgets the graphs of a file's tests, which would be ten gigabytes in the end.

    TensorFlow keeps the gradient of every custom operation for ever, and with it the graph of each `fit`, in which
    Keras's optimizer has one. What refers to itself Python searches for too rarely.
    """
    yield
    keras_compat.forget_custom_gradients()
    gc.collect()
    gc.freeze()  # what is left are caches, which stay as well


@pytest.fixture(scope="session", autouse=True)
def operations_as_they_are():
    """Commands make the operations of their process deterministic: here that would be those of the tests after them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
        yield


@pytest.fixture(scope="session")
def two_devices():
    """The strategy over the two logical CPU devices, the same one that `run` uses.

    A second one in the process would not do: TensorFlow numbers the collectives of every strategy from the same start,
    and those of the second meet the numbers of the first.
    """
    return parallel.strategy("mirrored")


@pytest.fixture(scope="session")
def tracked():
    """The files that the repository has, without networks of results, which are large."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    files = [pathlib.Path(line) for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    return [path for path in files if not (path.parts[0] == "results" and path.suffix == ".keras")]


@pytest.fixture(scope="session")
def distributions(tracked, tmp_path_factory):
    """The source distribution and the wheel."""
    place = tmp_path_factory.mktemp("package")
    for path in tracked:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, place / path)
    return check_package.build(place)


@pytest.fixture(scope="session")
def as_installed(distributions, tmp_path_factory):
    """Returns a function that runs a command in a folder with the installed wheel, and returns what it printed.

    What the wheel needs is taken from where the tests run, and not installed again.
    """
    place = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", f"--target={place}"]
    check_package.run([sys.executable, "-m", "pip", "install", *options, str(distributions[1])], place)
    programs = place / "bin"
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)

    def run(command, folder, **options):
        return check_package.run(command, folder, programs=programs, PYTHONPATH=str(place), **options)

    run.place = place
    return run
