"""Code of a page, with what takes long replaced."""


def shortened(code, instead):
    """Returns code with each key of `instead`, which it has once, replaced by its value."""
    for long, short in instead.items():
        assert code.count(long) == 1, long
        code = code.replace(long, short)
    return code
