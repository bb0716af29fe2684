"""Every public class and function is documented, typed, and has an example that runs."""

import doctest
import inspect
import types

import pytest
import tensorflow as tf

import tf_nuat
from tests.docs.site_test import public
from tf_nuat import NETWORKS
from tf_nuat.attacks import Attack

MODULES = [each for each in map(tf_nuat.__dict__.get, tf_nuat.__all__) if isinstance(each, types.ModuleType)]
# Training takes too long, and a strategy of several devices or machines is not there.
WITHOUT_EXAMPLE = {
    "networks": {"Differentiable", "differentiable"},  # an example of these needs a network without gradients
    "critical_epsilon": {"Measured", "SingleStep", "exact", "fast", "single_step"},
    "callbacks": {"RobustValidation", "MaskingAlarm", "overfits_catastrophically"},
}


def objects(module):
    """Returns the public classes, functions and attacks of a module by their names."""
    found = {name: getattr(module, name) for name in public(module)}
    kinds = (type, types.FunctionType, Attack)
    return {name: each for name, each in found.items() if isinstance(each, kinds)}


every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)


@every_module
def test_every_public_name_is_documented_and_has_an_example(module):
    without = {name for name, each in objects(module).items() if ">>>" not in (each.__doc__ or "")}
    assert without == WITHOUT_EXAMPLE.get(module.__name__.rpartition(".")[2], set())


@every_module
def test_every_public_function_is_typed(module):
    for name, each in objects(module).items():
        function = each.function if isinstance(each, Attack) else each
        if isinstance(function, types.FunctionType):
            signature = inspect.signature(function)
            assert signature.return_annotation is not signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not parameter.empty, f"{name}: {parameter.name}"


@pytest.fixture
def eagerly():
    """Most examples run once: tracing takes longer than running."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@every_module
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
def test_the_examples_run(module, eagerly, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    own = {name: each for name, each in objects(module).items() if name not in NETWORKS}  # which their tests build
    for name, each in own.items():
        found = doctest.DocTestParser().get_doctest(inspect.cleandoc(each.__doc__ or ""), {}, name, None, None)
        runner.run(found)
    assert runner.failures == 0
