"""All that this project uses of Keras and TensorFlow beyond their public API: private methods, and words of errors.

A new version may change these without notice. Each is here once, with its reason; no other module of the project uses
anything private. `tests/core/keras_compat_test.py` has a test of each, which fails when a version drops or changes it.
They were seen in Keras 3.15.1, the oldest that `setup.py` allows, with TensorFlow 2.21.
"""

import contextlib
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.trainers.data_adapters import array_data_adapter, generator_data_adapter, py_dataset_adapter
from keras.src.utils import python_utils
from tensorflow.python.framework import ops

from tf_nuat.core import files

# Modules of networks in `.keras` files of Keras 2, and their places in Keras 3, where loading looks for them.
MODULES_OF_KERAS_2 = {
    f"{place}.{name}": f"keras.src.models.{now}"
    for place in ("keras.engine", "keras.src.engine", "tf_keras.engine", "tf_keras.src.engine")
    for name, now in (("functional", "functional"), ("sequential", "sequential"), ("training", "model"))
}


class Model(keras.Model):
    """A `keras.Model`, to be subclassed, that `fit` and `evaluate` also train and test on several workers.

    Keras fails at two places. To build the model under a strategy it adds up the shares of a batch, which may differ in
    size, and of which a worker only has those of its own replicas. And under `MultiWorkerMirroredStrategy` it averages
    the logs over their first axis, which scalars lack.
    """

    def _maybe_symbolic_build(self, iterator: Iterable | None = None, data_batch: typing.Any = None) -> None:
        """Builds from a batch as Keras does; on several devices, from the share of the first one of this worker."""
        if iterator is not None and self.distribute_strategy.num_replicas_in_sync > 1:
            local = self.distribute_strategy.experimental_local_results
            _, _, batches = next(iter(iterator))
            iterator, data_batch = None, keras.tree.map_structure(lambda each: local(each)[0], next(batches))
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def logs_of_step(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the metrics, which a step returns; on several workers each gets an axis to be averaged over."""
        if _has_other_workers(self.distribute_strategy):
            logs = {name: tf.reshape(value, (1,)) for name, value in logs.items()}
        return logs


def _has_other_workers(strategy: tf.distribute.Strategy) -> bool:
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    return strategy.num_replicas_in_sync > len(strategy.extended.worker_devices)


def build(model: keras.Model, data_batch: typing.Any) -> None:
    """Makes the variables of a compiled model and its metrics from `data_batch`, symbolic tensors, without a step.

    `fit` does so at its first batch, but a checkpoint has to be restored before. Keras has no public call for it.
    """
    model._symbolic_build(data_batch=data_batch)


def momentum_of(optimizer: keras.optimizers.SGD, variable: keras.Variable) -> keras.Variable:
    """Returns the variable in which a built SGD keeps the momentum of `variable`.

    Optimizers number the variables they train; the number is private, though every `update_step` needs it.
    """
    return optimizer.momentums[optimizer._get_variable_index(variable)]


def takes_weight_decay(optimizer: keras.optimizers.Optimizer, variable: tf.Variable) -> bool:
    """Returns whether an optimizer applies its weight decay to `variable`: see its `exclude_from_weight_decay`.

    The variables that this method has excluded are private.
    """
    return optimizer._use_weight_decay(variable)


def without_loss_scale(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns the optimizer that changes the weights: the inner one of a `LossScaleOptimizer`, or itself."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


def batches_of(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """Returns the variable in which an optimizer counts the gradients it was given.

    It is private. The public `iterations` count updates, each perhaps of several accumulated gradients. The variable of
    a `LossScaleOptimizer` itself stays 0; that of its inner optimizer leaves out batches whose gradients overflowed.
    """
    return without_loss_scale(optimizer)._iterations


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """Returns the operation, mostly a layer, that has a symbolic tensor as its output.

    The public API only has the output of a layer's first use.
    """
    return tensor._keras_history.operation


def inputs_of(tensor: keras.KerasTensor) -> list[keras.KerasTensor]:
    """Returns the symbolic tensors that the operation behind a tensor was called with, flat."""
    return _node_of(tensor).input_tensors


def arguments_of(tensor: keras.KerasTensor) -> typing.Any:
    """Returns the first argument that the operation behind a tensor was called with: a tensor, a list or a dict."""
    return _node_of(tensor).arguments.args[0]


def output_within(tensor: keras.KerasTensor) -> keras.KerasTensor | None:
    """Returns the counterpart of a tensor, which a network within another returned, in the graph of the inner network.

    None if a layer made the tensor, or a model with its own `call`: the graph of such a model, if any, does not tell.
    """
    history = tensor._keras_history
    return history.operation.outputs[history.tensor_index] if is_graph(history.operation) else None


def _node_of(tensor: keras.KerasTensor) -> typing.Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def renew_constants(layer: keras.layers.Layer) -> None:
    """Makes a layer whose weights were assigned renew the constants that it computes from them.

    `Normalization` computes with constants, which `finalize_state` makes from its weights; `set_weights` leaves them.
    """
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()


def first_operations(network: keras.Model) -> Iterator[keras.Operation]:
    """Yields the operations, mostly layers, that take the images one after another, up to the first branch.

    In a functional network they are in its graph, which is private.
    """
    if isinstance(network, keras.Sequential):
        yield from network.layers
    elif hasattr(network, "_nodes_by_depth"):
        nodes, tensor = keras.tree.flatten(list(network._nodes_by_depth.values())), network.inputs[0]
        while len(takes := [node for node in nodes if any(each is tensor for each in node.input_tensors)]) == 1:
            yield takes[0].operation
            tensor = takes[0].output_tensors[0]


def is_graph(operation: typing.Any) -> bool:
    """Returns whether an operation is a network whose own operations `run_graph` can compute one after another."""
    if not getattr(operation, "built", False) or not isinstance(operation, (keras.Sequential, keras.Function)):
        return False
    return computes_as_keras(operation) and bool(getattr(operation, "inputs", None))


def computes_as_keras(operation: keras.Operation) -> bool:
    """Returns whether the `call` of an operation is Keras's own: a subclass may compute otherwise."""
    own = next(kind for kind in type(operation).__mro__ if "call" in vars(kind))
    return own.__module__.startswith("keras.")


def run_graph(network: keras.Model, inputs: typing.Any, call: Callable[..., typing.Any]) -> typing.Any:
    """Returns the outputs of a functional or sequential network, with each operation computed by `call`.

    The public API can run a network as a whole, or copy it layer by layer, which leaves marks on the layers.

    Args:
        network: a network for which `is_graph` is true.
        inputs: a tensor, or a structure of them as the network takes.
        call: function of an operation, mostly a layer, and its arguments in inference mode, that returns its outputs.
    """
    if isinstance(network, keras.Sequential):
        network = keras.Model(network.inputs, network.outputs)  # the same operations, which are not called

    def computed(operation: keras.Operation) -> Callable[..., typing.Any]:
        takes_training = isinstance(operation, keras.Layer) and (
            "training" in inspect.signature(operation.call).parameters
        )
        # As `network(x, training=False)`: even if the network's author has called the layer with another value.
        fixed = {"training": False} if takes_training else {}
        return lambda *args, **given: call(operation, *args, **{**given, **fixed})

    inputs = [tf.cast(each, like.dtype) for each, like in zip(keras.tree.flatten(inputs), network.inputs)]
    outputs = network._run_through_graph(inputs, operation_fn=computed)
    return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs


def give_names_to_lambdas(names: typing.Mapping[str, typing.Any]) -> None:
    """Lets the code of Lambda layers that is read from a file use modules that its author had imported.

    Keras runs that code with the global names of one of its own modules.
    """
    for name, module in names.items():
        vars(python_utils).setdefault(name, module)


@contextlib.contextmanager
def variables_without_values() -> Iterator[None]:
    """A context for networks that are only built to be looked at: their variables take no memory.

    A `StatelessScope` leaves the variables in a list, and the next scope would make them.
    """
    kept = list(global_state.get_global_attribute("uninitialized_variables") or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute("uninitialized_variables", kept)


def return_inputs_while(layer: keras.layers.Layer, condition: Callable[[], bool]) -> None:
    """Makes a layer return its inputs whenever it is called, or traced, while `condition()` is true.

    It replaces `call` on the instance, as `passing_through` does, but several threads may trace at a time.
    """
    own = layer.call

    @functools.wraps(own)
    def call(inputs: typing.Any, *arguments: typing.Any, **options: typing.Any) -> typing.Any:
        return inputs if condition() else own(inputs, *arguments, **options)

    layer.call = call


@contextlib.contextmanager
def passing_through(layer: keras.layers.Layer) -> Iterator[None]:
    """A context in which a layer returns its inputs, whatever network calls it.

    It replaces the layer's `call` on the instance. This also works in networks within networks, copies nothing and,
    unlike a second graph over the same layers, leaves the network as it was.
    """
    layer.call = lambda inputs, *args, **kwargs: inputs
    try:
        yield
    finally:
        del layer.call


def is_nan_loss(error: RuntimeError) -> bool:
    """Returns whether `TerminateOnNaN(raise_error=True)` raised the error: it has no type of its own."""
    return "NaN or Inf loss" in str(error)


def is_late_start(error: RuntimeError) -> bool:
    """Returns whether the error says that a strategy over several workers was made after TensorFlow was used."""
    return "program startup" in str(error)


def reason_of(error: BaseException) -> str:
    """Returns why Keras could not read or call a network, in one line: the end of its message, without its lists."""
    text = re.split("(?:Exception|Error) encountered:", str(error))[-1]
    text = re.sub(r"\x1b\[\d+m|\{\{function_node \S+\}\}", "", text)
    for noise in ("Full object config:", "\n\nconfig={", "Full config:", "Arguments received by"):
        text = text.partition(noise)[0]
    return files.in_one_line(text) or type(error).__name__


def is_own_object(reason: str) -> bool:
    """Returns whether `reason_of` tells of a class or a function that Keras does not know."""
    return any(words in reason for words in ("Could not locate", "Unknown layer", "Unknown object"))


# What a collective operation raises on the workers that are left when another has ended.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)


def lost_worker_in(error: BaseException | None) -> BaseException | None:
    """Returns the error of a lost worker, if that is `error` or one of its causes; else None.

    Keras wraps what is raised while it loads a network in its own exceptions.
    """
    while error is not None and not isinstance(error, LOST):
        error = error.__cause__ or error.__context__
    return error


def lost_task(error: tf.errors.OpError, *, own: str) -> str | None:
    """Returns the other task, such as "worker 1", that an error of a collective operation names; None if it has none.

    Args:
        error: what the operation raised.
        own: the task of this process, which the text also names, as the one whose call has failed.
    """
    found = [f"{job} {number}" for job, number in re.findall(r"/job:(\w+)/replica:\d+/task:(\d+)", str(error))]
    return next((task for task in found if task != own), None)


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns `dataset` without the thread that tunes it, for one that has nothing to tune.

    The end of an iterator does not always wake that thread, and then waits for it: for up to as long as the iterator
    was used, and up to a minute (TensorFlow 2.21). At the end of an epoch nothing trains so long.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


@contextlib.contextmanager
def datasets_of_keras_untuned() -> Iterator[None]:
    """A context in which the datasets that Keras makes of arrays, generators and `PyDataset`s are `untuned`.

    Keras begins an iterator in every epoch, and nothing in those datasets needs the thread.
    """
    adapters = (
        array_data_adapter.ArrayDataAdapter,
        generator_data_adapter.GeneratorDataAdapter,
        py_dataset_adapter.PyDatasetAdapter,
    )
    made = {adapter: adapter.get_tf_dataset for adapter in adapters}
    for adapter, make in made.items():
        adapter.get_tf_dataset = lambda self, make=make: untuned(make(self))
    try:
        yield
    finally:
        for adapter, make in made.items():
            adapter.get_tf_dataset = make


def raised_in_pipeline(error: tf.errors.OpError, kind: str = r"\w+(?:Error|Exception)") -> str | None:
    """Returns "Type: message" of the Python exception that ended a `tf.data` pipeline; None if the error has none.

    TensorFlow only passes the text of an exception out of a pipeline's threads, after the names of its place.

    Args:
        error: what the pipeline raised.
        kind: regular expression of the names of the types that count.
    """
    found = re.search(rf"\b{kind}: .*", str(error.message))
    return found and found.group()


def forget_custom_gradients() -> None:
    """Frees the custom gradients of every graph made so far, which can then still run, but no longer be traced.

    TensorFlow's registry of gradients keeps them for ever, and with each its graph and the network in it. Keras's
    optimizers have one in each graph of `fit`. This is for processes that train many networks.
    """
    kept = ops.gradient_registry._registry
    for name in [name for name in kept if name.startswith("CustomGradient-")]:
        del kept[name]
