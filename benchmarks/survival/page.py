"""Renders the page with the table of what was tried."""

from recipes.table import escaped, markdown

INTRODUCTION = """\
Training, an evaluation and a judgement of small networks on scikit-learn's digits, disturbed in every way that follows.
`survived`: the same command, started again, ended with the results of a run that was not disturbed, bit for bit
(weights, logs, per-image outcomes, `results.json`; times aside), and what was said before was one line or nothing, no
traceback. Where a run has to be refused, or to blame another worker, that line has to come, with its exit status.
The commands run in processes forked from one that has imported TensorFlow. Signals come at random moments from a
command's first file to its end. A full disk is a file system that is filled when the file before the named
one appears."""


def page(content: dict, judgements: dict | None = None) -> str:
    """Returns the page for the content of `survival.json`, and of `judgements.json` where there is one."""
    rows = [
        {
            "what": row["work"],
            "disturbed by": row["circumstance"],
            "tried": str(row["tried"]),
            "survived": str(row["survived"]),
            "seen": "<br>".join(f"{escaped(text)} ({count})" for text, count in row["seen"].items()),
        }
        for row in content["rows"]
    ]
    tried, survived = (sum(row[name] for row in content["rows"]) for name in ("tried", "survived"))
    sections = [
        "# What was tried, how often, what survived",
        f"Rendered by `{content['command']}`.",
        INTRODUCTION,
        f"In all: {survived} of {tried}. Processor: {content['processor']}, {content['processors']} cores.",
        markdown(rows, links=("seen",)),
        *([] if judgements is None else [_held(judgements)]),
    ]
    return "\n\n".join(sections) + "\n"


def _held(content: dict) -> str:
    """Returns the section about what a process holds while it judges again and again."""
    first, last, growth = content["held"][1], content["held"][-1], content["growth"]
    rows = [
        {
            "held": name.replace("_mib", ", MiB").replace("_", " "),
            "after the first": f"{first[name]:,}",
            "after the last": f"{last[name]:,}",
            "first half": f"{growth[name]['first_half']:+.1f}",
            "second half": f"{growth[name]['second_half']:+.1f}",
        }
        for name in growth
    ]
    return (
        f"## {len(content['seconds'])} judgements in one process\n\n"
        "What the process holds, and by how much that grows: from the first quarter of the judgements to the second,\n"
        f"and from the third to the fourth.\n\n    {content['command']}\n\n{markdown(rows)}"
    )
