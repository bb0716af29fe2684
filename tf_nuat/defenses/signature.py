"""`ConstructorSignature`: all arguments of a class whose constructor passes `**options` on to its base class."""

import inspect


class ConstructorSignature:
    """As the `__signature__` of a class, makes `inspect.signature` show the arguments that `**options` stands for.

    The arguments of the class itself come first, then those of its bases, in the order in which the constructors call
    each other. If several classes have an argument, the default of the first counts.
    """

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")  # an instance has the signature of its call
        found: dict[str, inspect.Parameter] = {}
        for constructor in (vars(each)["__init__"] for each in owner.__mro__ if "__init__" in vars(each)):
            _, *parameters = inspect.signature(constructor).parameters.values()
            named = [each for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
            found = found | {each.name: each for each in named if each.name not in found}
            if len(named) == len(parameters):  # it passes nothing on
                break
        return inspect.Signature(list(found.values()))
