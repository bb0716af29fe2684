"""`ConstructorSignature`: every argument of a class whose constructor hands `**options` on to the class behind it."""

import inspect


class ConstructorSignature:
    """As the attribute `__signature__` of a class, it has `inspect.signature` show the arguments behind `**options`.

    Those of the class itself come first, then those of the classes behind it, in the order in which constructors call
    each other; of an argument that several have, the default of the first counts.
    """

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")  # that of an instance is the one of its call
        found: dict[str, inspect.Parameter] = {}
        for constructor in (vars(each)["__init__"] for each in owner.__mro__ if "__init__" in vars(each)):
            _, *parameters = inspect.signature(constructor).parameters.values()
            named = [each for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
            found = found | {each.name: each for each in named if each.name not in found}
            if len(named) == len(parameters):  # it hands nothing on
                break
        return inspect.Signature(list(found.values()))
