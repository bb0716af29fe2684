"""Saving of a whole defense: its configuration, and an error before training if it cannot be saved."""

import inspect
import types
import typing

import keras

from tf_nuat.core import files

if typing.TYPE_CHECKING:
    from tf_nuat.defenses.base import Defense


_MISSING = object()


def config_of(model: "Defense") -> dict[str, typing.Any]:
    """Returns the serialized constructor arguments of a defense, from its attributes of the same names.

    Raises:
        ValueError: an argument has no attribute (EAT's sources), or Keras could not load its value again.
    """
    parameters = inspect.signature(type(model)).parameters.values()
    names = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    return {name: _serialized(model, name) for name in names}


def _serialized(model: "Defense", name: str) -> typing.Any:
    value: typing.Any = getattr(model, name, _MISSING)
    if value is _MISSING:
        refuse(model, f"has no attribute {name}, its argument")
    is_function = isinstance(value, (types.FunctionType, types.BuiltinFunctionType))
    if is_function and keras.saving.get_registered_name(value) == value.__name__:
        refuse(model, f"has the plain function {value.__name__} as {name}; a schedule of tf_nuat.schedules is saved")
    try:
        return keras.saving.serialize_keras_object(value)
    except Exception as error:  # whatever a layer of the user's own raises
        return refuse(model, f"has a {name} that Keras cannot save ({files.reason(error)})")


def refuse(model: "Defense", why: str) -> typing.NoReturn:
    """Raises a `ValueError`: the defense cannot be saved whole. The message says what can be saved."""
    raise ValueError(
        f"{type(model).__name__} cannot be saved whole: it {why}; allowed: model.network.save(path), in training by "
        "keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.network.save(path))"
    )


def check_callbacks(model: "Defense", callbacks: typing.Any) -> None:
    """Raises, before training, if a callback would save the whole defense after an epoch, and that would fail."""
    for each in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks) or []):
        if isinstance(each, keras.callbacks.ModelCheckpoint) and not each.save_weights_only:
            model.get_config()
