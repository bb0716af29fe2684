"""Every public class and function is documented, typed, and has an example that runs."""

import doctest
import inspect
import types

import keras
import pytest
import tensorflow as tf

import sanity
import tf_nuat
from sanity import adaptive, checks, clock, evaluation, figures, report, result, series, settings, statistics, subject
from sanity import verdict as verdicts
from tests.docs.site_test import public
from tf_nuat import NETWORKS, training
from tf_nuat.attacks import Attack
from tf_nuat.critical_epsilon import training_runs

OF_SANITY = (sanity, adaptive, clock, evaluation, figures, report, result, series, settings, statistics, subject)
MODULES = [
    *(each for each in map(tf_nuat.__dict__.get, tf_nuat.__all__) if isinstance(each, types.ModuleType)),
    *OF_SANITY,
    checks,
    verdicts,
]


def objects(module):
    """Returns the public classes, functions and attacks of a module by their names."""
    if module is checks:
        return checks.CHECKS
    found = {name: getattr(module, name) for name in public(module)}
    kinds = (type, types.FunctionType, Attack)
    return {name: each for name, each in found.items() if isinstance(each, kinds)}


every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)


@every_module
def test_every_public_name_is_documented_and_has_an_example(module):
    without = {name for name, each in objects(module).items() if ">>>" not in (each.__doc__ or "")}
    assert without == set() and objects(module)


@every_module
def test_every_public_function_is_typed(module):
    for name, each in objects(module).items():
        function = each.function if isinstance(each, Attack) else each
        if isinstance(function, types.FunctionType):
            signature = inspect.signature(function)
            assert signature.return_annotation is not signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not parameter.empty, f"{name}: {parameter.name}"


@pytest.fixture(scope="module")
def eagerly():
    """Most examples run once: tracing takes longer than running."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def run(eagerly):
    """Returns a function that runs the examples in a docstring with names that are there, and returns the names."""
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)

    def run(name, text, names):
        found = doctest.DocTestParser().get_doctest(inspect.cleandoc(text or ""), dict(names), name, None, None)
        assert runner.run(found, clear_globs=False).failed == 0, name
        return found.globs

    return run


@pytest.fixture(scope="module")
def begun(run):
    """Returns the names of the example from which those of `sanity` go on."""
    return run("sanity", sanity.__doc__, {})


@pytest.fixture
def without_training(monkeypatch, tmp_path):
    """The examples of the critical epsilon train for minutes: here the loss of a training is 0.1 + 2 epsilon."""
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    network.save(tmp_path / "clean.keras")
    clean = training_runs.Clean(str(tmp_path / "clean.keras"), 0.01, 0.5, 0.97, 100, 7.0)
    monkeypatch.setattr(training_runs, "clean_network", lambda *arguments: clean)
    monkeypatch.setattr(training_runs, "train_and_measure", lambda recipe, *rest: (0.1 + 2.0 * recipe.epsilon, 3.0))
    left = types.SimpleNamespace(accuracy=0.5, images=100)
    history = [{"loss": 0.1, "masking_alarm": 0.0}]
    card = types.SimpleNamespace(history=history, measured={"fgsm": left, "pgd_20": left}, training_seconds=3.0)
    monkeypatch.setattr(training, "run", lambda *arguments: card)


@every_module
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
def test_the_examples_run(module, run, begun, without_training, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, each in objects(module).items():
        if name not in NETWORKS:  # which their tests build
            names = {**vars(module), **begun} if module.__name__.startswith("sanity") else {}
            run(name, each.__doc__, names)
