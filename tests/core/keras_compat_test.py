"""What `keras_compat` uses beneath the public surface of Keras and TensorFlow is there, and means what it meant."""

import ast
import gc
import importlib
import inspect
import pathlib
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import tuning
from tf_nuat.core import keras_compat

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = np.linspace(0.0, 1.0, 8 * 4 * 4, dtype=np.float32).reshape(8, 4, 4, 1)
LABELS = np.arange(8) % 3


def network():
    return keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])


class Wrapping(keras_compat.Model):
    """A model as a defense is one: of inputs and outputs, Keras would change the class that it is made of."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def call(self, x, training=False):
        return self.network(x, training=training)


def compiled(model):
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def test_fit_and_evaluate_build_through_the_replaced_method():
    """On several workers nothing works without it: that they call it no longer must not go unseen."""
    parameters = inspect.signature(keras.Model._maybe_symbolic_build).parameters
    assert list(parameters) == ["self", "iterator", "data_batch"]
    built = []

    class Watched(Wrapping):
        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            _, _, batches = next(iter(iterator))
            built.append(keras.tree.map_structure(lambda each: each.shape, next(batches)))
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    model = compiled(Watched())
    model.fit(IMAGES, LABELS, batch_size=8, verbose=0)
    model.evaluate(IMAGES, LABELS, batch_size=8, verbose=0)
    assert built == [((8, 4, 4, 1), (8,))] * 2


def test_the_logs_of_a_step_come_from_the_replaced_method():
    class Doubled(Wrapping):
        def get_metrics_result(self):
            return {name: 2.0 * value for name, value in super().get_metrics_result().items()}

    once, twice = (compiled(kind()) for kind in (Wrapping, Doubled))
    twice.network.set_weights(once.network.get_weights())
    logs = [model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True) for model in (once, twice)]
    assert logs[1]["loss"] == pytest.approx(2.0 * logs[0]["loss"])


def test_a_model_is_built_without_a_step():
    model = compiled(network())
    before = model.get_weights()
    assert not any(metric.variables for metric in model.metrics if metric.name == "accuracy")
    keras_compat.build(model, (keras.KerasTensor((None, 4, 4, 1)), keras.KerasTensor((None,), "int64")))
    variables = [variable for metric in model.metrics for variable in metric.variables]
    assert len(variables) == 4  # total and count, of the loss and of the accuracy
    assert all(float(variable) == 0.0 for variable in variables)
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)


def test_the_momentum_of_a_variable_is_its_own():
    """Each variable has a gradient of its own: after a step from rest, the momentum is -learning_rate * gradient."""
    variables = [keras.Variable(np.zeros(shape, np.float32)) for shape in ((2,), (3, 1), (2,))]
    optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
    optimizer.build(variables)
    optimizer.apply([tf.fill(variable.shape, number + 1.0) for number, variable in enumerate(variables)])
    for number, variable in enumerate(variables):
        momentum = keras_compat.momentum_of(optimizer, variable)
        np.testing.assert_allclose(momentum.numpy(), np.full(variable.shape, -0.5 * (number + 1.0)))
        assert hasattr(momentum.value, "handle")  # what raw operations take


def test_the_gradients_that_an_optimizer_was_given_are_counted():
    """Its public count is of updates, each of two accumulated gradients here."""
    variable = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
    for number in range(1, 6):
        optimizer.apply([tf.ones(1)], [variable])
        assert int(keras_compat.batches_of(optimizer).value) == number and int(optimizer.iterations) == number // 2


def test_the_gradients_are_counted_within_optimizers_that_scale_the_loss():
    variable = keras.Variable([1.0])
    inner = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.LossScaleOptimizer(inner))
    assert keras_compat.without_loss_scale(optimizer) is inner
    assert keras_compat.without_loss_scale(inner) is inner
    for number in range(1, 4):
        optimizer.apply([tf.ones(1)], [variable])
        assert int(keras_compat.batches_of(optimizer).value) == number and int(optimizer.iterations) == number // 2


def test_what_is_excluded_from_weight_decay_is_known():
    kernel, bias, scale = (keras.Variable([1.0], name=name) for name in ("kernel", "bias", "scale"))
    optimizer = keras.optimizers.SGD(0.5, weight_decay=0.1)
    assert all(keras_compat.takes_weight_decay(optimizer, each.value) for each in (kernel, bias, scale))
    optimizer = keras.optimizers.SGD(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[scale], var_names=["bias"])
    taken = [keras_compat.takes_weight_decay(optimizer, each.value) for each in (kernel, bias, scale)]
    assert taken == [True, False, False]


def test_the_operation_of_a_tensor_is_the_layer_that_made_it():
    layer = keras.layers.Dense(3)
    inputs = keras.Input((5,))
    first, second = layer(inputs), layer(2.0 * inputs)
    assert layer.output is not second  # why the public attribute will not do
    assert keras_compat.operation_of(first) is layer and keras_compat.operation_of(second) is layer
    inner = network()
    assert keras_compat.operation_of(inner(keras.Input((4, 4, 1)))) is inner


def test_the_first_operations_of_a_network_are_those_that_its_images_go_through():
    first, second = keras.layers.Rescaling(2.0), keras.layers.Flatten()
    inputs = keras.Input((4, 4, 1))
    x = second(first(inputs))
    ends = keras.layers.Concatenate()([keras.layers.Dense(3)(x), keras.layers.Dense(3)(x)])
    functional = keras.Model(inputs, ends)
    keras.layers.Dense(2)(first.output)  # a use in no network
    assert list(keras_compat.first_operations(functional)) == [first, second]
    sequential = keras.Sequential([keras.Input((4, 4, 1)), first, second])
    assert list(keras_compat.first_operations(sequential)) == [first, second]
    assert list(keras_compat.first_operations(keras.Model(inputs, sequential(inputs)))) == [sequential]
    assert list(keras_compat.first_operations(Wrapping())) == []  # its way is not known


def test_a_network_is_run_operation_by_operation():
    inner = network()
    inputs = keras.Input((4, 4, 1))
    dropped = keras.layers.Dropout(0.5)(keras.layers.Rescaling(2.0)(inputs), training=True)
    outer = keras.Model([inputs], [inner(dropped + 1.0)])
    uses = [len(layer._inbound_nodes) for layer in (*outer.layers, *inner.layers)]
    seen = []

    def call(operation, *arguments, **options):
        seen.append(type(operation).__name__)
        if keras_compat.is_graph(operation):
            return keras_compat.run_graph(operation, arguments[0], call)
        return operation(*arguments, **options)

    assert keras_compat.is_graph(outer) and keras_compat.is_graph(inner)
    assert not any(map(keras_compat.is_graph, (Wrapping(), keras.Sequential(), *inner.layers)))
    found = keras_compat.run_graph(outer, IMAGES, call)
    np.testing.assert_array_equal(found, outer(IMAGES, training=False))  # where nothing is dropped
    assert seen == ["Rescaling", "Dropout", "Add", "Sequential", "Flatten", "Dense"]
    assert uses == [len(layer._inbound_nodes) for layer in (*outer.layers, *inner.layers)]


@pytest.mark.parametrize("graph", [False, True])
def test_a_layer_returns_its_inputs_while_a_condition_holds(graph):
    holds = [False]
    layer = keras.layers.Rescaling(2.0)
    outer = keras.Sequential([keras.Input((4, 4, 1)), layer])
    keras_compat.return_inputs_while(layer, lambda: holds[0])
    for holds[0], factor in (False, 2.0), (True, 1.0), (False, 2.0):
        function = tf.function(outer.__call__, autograph=False) if graph else outer
        np.testing.assert_array_equal(function(tf.constant(IMAGES)), factor * IMAGES)
    assert layer.get_config()["scale"] == 2.0 and keras.Sequential.from_config(outer.get_config()).built


def test_what_an_operation_was_called_with_is_known():
    layer, inputs, others = keras.layers.Add(), keras.Input((5,)), keras.Input((5,))
    layer([inputs, inputs])
    second = layer([inputs, others])
    assert [each is other for each, other in zip(keras_compat.inputs_of(second), [inputs, others])] == [True, True]
    (first, last) = keras_compat.arguments_of(second)
    assert first is inputs and last is others


def test_a_tensor_that_a_network_inside_returned_is_known_in_its_graph():
    inputs, images = keras.Input((4, 4, 1)), keras.Input((4, 4, 1))
    flat = keras.layers.Flatten()(inputs)
    ends = [keras.layers.Dense(3)(flat), keras.layers.Dense(2)(flat)]
    found = keras.Model(inputs, ends)(images)
    assert [keras_compat.output_within(each) is end for each, end in zip(found, ends)] == [True, True]
    sequential = network()
    assert keras_compat.output_within(sequential(images)) is sequential.outputs[0]
    assert keras_compat.output_within(flat) is None and keras_compat.output_within(Wrapping()(images)) is None


def test_the_reason_is_the_end_of_what_keras_says(tmp_path):
    config = network().to_json().replace('"units": 3', '"units": 3, "unheard_of": 1')
    with pytest.raises(Exception) as caught:
        keras.models.model_from_json(config)
    reason = keras_compat.reason_of(caught.value)
    assert "unheard_of" in reason and "kernel_initializer" not in reason and "\n" not in reason
    assert not keras_compat.is_own_object(reason)

    class OfOnesOwn(keras.layers.Layer):
        pass

    keras.Sequential([keras.Input((5,)), OfOnesOwn()]).save(tmp_path / "own.keras")
    with pytest.raises(TypeError) as caught:
        keras.saving.load_model(tmp_path / "own.keras")
    assert keras_compat.is_own_object(keras_compat.reason_of(caught.value))


def test_a_normalization_computes_with_the_weights_that_it_was_given():
    one, other = keras.layers.Normalization(), keras.layers.Normalization()
    one.adapt(IMAGES)
    other.adapt(3.0 * IMAGES + 1.0)
    other.set_weights(one.get_weights())
    assert not np.allclose(other(IMAGES), one(IMAGES))  # where Keras does it itself, the function may go
    keras_compat.renew_constants(other)
    np.testing.assert_array_equal(other(IMAGES), one(IMAGES))
    keras_compat.renew_constants(keras.layers.Flatten())  # has none


@pytest.mark.parametrize("graph", [False, True])
def test_a_layer_passes_its_inputs_through_while_told_so(graph):
    inner = network()
    inputs = keras.Input((4, 4, 1))
    outer = keras.Model(inputs, inner(inputs))
    expected = outer(IMAGES).numpy()

    def features(x):
        with keras_compat.passing_through(inner.layers[-1]):
            return outer(x, training=False)

    features = tf.function(features, autograph=False) if graph else features
    np.testing.assert_array_equal(features(tf.constant(IMAGES)), IMAGES.reshape(8, 16))
    np.testing.assert_array_equal(outer(IMAGES), expected)


def test_a_loss_that_is_no_number_is_known_by_its_error():
    model = compiled(network())
    stop = keras.callbacks.TerminateOnNaN(raise_error=True)
    with pytest.raises(RuntimeError) as caught:
        model.fit(np.full_like(IMAGES, np.nan), LABELS, verbose=0, callbacks=[stop])
    assert keras_compat.is_nan_loss(caught.value)
    assert not keras_compat.is_nan_loss(RuntimeError("out of memory"))


def test_a_strategy_over_workers_that_comes_too_late_is_known_by_its_error():
    tf.constant(0.0).numpy()  # TensorFlow is used
    workers = tf.train.ClusterSpec({"worker": ["localhost:1", "localhost:2"]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(workers, task_type="worker", task_id=0)
    with pytest.raises(RuntimeError) as caught:
        tf.distribute.MultiWorkerMirroredStrategy(resolver)
    assert keras_compat.is_late_start(caught.value)
    assert not keras_compat.is_late_start(RuntimeError("out of memory"))


def test_variables_without_values_are_not_made_later():
    with keras_compat.variables_without_values():
        layer = keras.layers.Dense(10**9)
        layer.build((None, 10**6))
    assert layer.count_params() == 10**15 + 10**9
    with keras.StatelessScope():
        outer = keras.layers.Dense(2)
        outer.build((None, 3))
    assert outer.kernel.numpy().shape == (3, 2)


def test_the_task_that_is_lost_is_named():
    """Its text is that of TensorFlow 2.21; `multiworker_test` has a worker killed, and the true error."""
    text = "Collective ops is aborted by: /job:worker/replica:0/task:1 is down [Op:CollectiveReduceV2]"
    lost = tf.errors.UnavailableError(None, None, text)
    assert keras_compat.lost_task(lost, own="worker 0") == "worker 1"
    of_both = tf.errors.UnavailableError(None, None, f"/job:worker/replica:0/task:0 cannot go on: {text}")
    assert keras_compat.lost_task(of_both, own="worker 0") == "worker 1"
    assert keras_compat.lost_task(lost, own="worker 1") is None
    assert keras_compat.lost_task(tf.errors.UnavailableError(None, None, "Socket closed"), own="worker 0") is None


class MissingError(ValueError):
    pass


def pipeline_error(mapped):
    dataset = tf.data.Dataset.range(3).map(lambda number: tf.numpy_function(mapped, [number], tf.int64))
    with pytest.raises(tf.errors.OpError) as caught:
        list(dataset)
    return caught.value


def test_what_a_pipeline_raised_is_found_in_its_error():
    def missing(number):
        raise MissingError(f"image {number}: it is gone")

    error = pipeline_error(missing)
    assert keras_compat.raised_in_pipeline(error) == "MissingError: image 0: it is gone"
    assert keras_compat.raised_in_pipeline(error, "MissingError") == "MissingError: image 0: it is gone"
    assert keras_compat.raised_in_pipeline(error, "OtherError") is None
    assert keras_compat.raised_in_pipeline(tf.errors.DataLossError(None, None, "truncated")) is None


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return IMAGES, LABELS


def test_datasets_of_keras_are_untuned_and_those_of_the_user_as_they_are(monkeypatch):
    read = tuning.watched(monkeypatch)
    model = compiled(network())

    def tuned(*data):
        read.clear()
        model.fit(*data, shuffle=False, verbose=0)
        return set(read)

    pair = IMAGES, LABELS
    with keras_compat.datasets_of_keras_untuned():
        assert tuned(*pair) == tuned(Batches()) == tuned(each for each in [pair]) == {False}
        assert tuned(tf.data.Dataset.from_tensors(pair)) == {None}
    assert tuned(*pair) == {None}


def test_custom_gradients_hold_their_graph_until_they_are_forgotten():
    class Held:
        pass

    def traced():
        held = Held()

        @tf.custom_gradient
        def identity(x):
            def backward(upstream):
                assert held is not None
                return upstream

            return tf.identity(x), backward

        function = tf.function(lambda x: identity(x), autograph=False)
        function(tf.constant(1.0))
        return weakref.ref(held)

    held = traced()
    gc.collect()
    assert held() is not None  # where TensorFlow frees it itself, the function may go
    keras_compat.forget_custom_gradients()
    gc.collect()
    assert held() is None


PACKAGES = ("tf_nuat", "sanity", "recipes")
OF_PYTHON = {"_replace", "_asdict", "_fields", "_exit"}  # of named tuples, and of `os`


def private(name):
    return name.startswith("_") and not name.startswith("__")


def reaches_beneath(tree, own):
    """Yields the private names of others that a file uses, and modules; `own` are the names that the project makes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own | OF_PYTHON:
            yield node.attr
        elif isinstance(node, ast.FunctionDef) and private(node.name) and hasattr(keras.Model, node.name):
            yield node.name
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.startswith(("keras.src", "tensorflow.python")))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("keras.src", "tensorflow.python")):
            yield node.module


def made_by(tree):
    """Yields the names of the functions and attributes that a file makes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_nothing_else_reaches_beneath_the_surface():
    trees = {path: ast.parse(path.read_text()) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    own = {name for tree in trees.values() for name in made_by(tree)}
    found = {path.stem: sorted(set(reaches_beneath(tree, own))) for path, tree in trees.items()}
    found = {stem: names for stem, names in found.items() if names}
    hooks = (
        "get_variable_index",
        "inbound_nodes",
        "iterations",
        "keras_history",
        "maybe_symbolic_build",
        "nodes_by_depth",
        "registry",
        "run_through_graph",
        "symbolic_build",
        "use_weight_decay",
    )
    beneath = [f"_{name}" for name in hooks]
    modules = [
        "keras.src.backend.common",
        "keras.src.trainers.data_adapters",
        "keras.src.utils",
        "tensorflow.python.framework",
    ]
    assert found == {"keras_compat": [*beneath, *modules]}


def test_networks_of_keras_2_have_their_classes_where_keras_3_looks_for_them():
    now = {old.split(".")[-1]: importlib.import_module(new) for old, new in keras_compat.MODULES_OF_KERAS_2.items()}
    assert issubclass(now["functional"].Functional, keras.Model)
    assert now["sequential"].Sequential is keras.Sequential and now["training"].Model is keras.Model
