"""Sphinx: the pages are Markdown (MyST), the API reference comes from the docstrings. `make docs` builds the site.

The source folder is the repository itself, so that the links of README.md, of docs/ and of results/ are those that lead
somewhere on the site, too.
"""

import inspect
import re

import tf_nuat  # before Keras imports TensorFlow, which it makes quiet

# isort: split

import keras
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

project = "tf_nuat"
version = release = tf_nuat.__version__
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**",
    "results/*.md",
    *(
        f"results/{name}/*.md"
        for name in ("benchmarks", "cifar10_small", "race_cifar10*", "sat_tables", "survival", "zoo*")
    ),
]
exclude_patterns = [".git", ".venv", "build", "runs", "site"]
nitpicky = False  # of every class of NumPy, TensorFlow and Keras in a signature there is no page

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # with the names that GitHub gives them
myst_links_external_new_tab = False
# The notebook is run when the pages are built. It leaves nothing, and what fails in it is an error.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell
nb_execution_show_tb = True
nb_output_stderr = "remove"  # progress bars
nb_merge_streams = True

default_role = "py:obj"  # what stands in `backticks` in a docstring: a link where it is a name of the reference
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # those of Keras are for another page
autodoc_typehints = "none"  # the docstrings say it
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

copybutton_prompt_text = ">>> |\\.\\.\\. "  # which is not copied
copybutton_prompt_is_regexp = True

html_math_renderer = "mathml"  # which browsers show without a script from another site
html_theme = "furo"
html_title = "tf_nuat"
html_show_copyright = False
html_additional_pages = {"index": "to_first_page.html"}
templates_path = ["templates"]


def signature_of_defense(app, what, name, documented, options, signature, return_annotation):
    """Keras models have a `__new__` that takes anything: what they take is what `__init__` says."""
    if what == "class" and issubclass(documented, (keras.layers.Layer, keras.callbacks.Callback)):
        if hasattr(documented, "__signature__"):
            parameters = list(inspect.signature(documented).parameters.values())
        else:
            _, *parameters = inspect.signature(documented.__init__).parameters.values()
        return str(inspect.Signature([each.replace(annotation=each.empty) for each in parameters])), None
    return None


def as_written(app, what, name, documented, options, lines):
    """Keeps reStructuredText from another reading of a docstring, of which napoleon has made fields.

    Bars are those of absolute values and norms, and of attributes that share a line none is the type of the other.
    """
    text = re.split(r"(`[^`]*`)", "\n".join(lines))
    text[::2] = [each.replace("|", r"\|") for each in text[::2]]
    lines[:] = [
        re.sub(r"^:ivar [^:]*:", lambda field: field[0].replace(", ", ","), line) for line in "".join(text).split("\n")
    ]


def math(writer, node):
    """Writes a formula, inline or in a block of its own, as MathML."""
    is_block = isinstance(node, nodes.math_block)
    written = convert(node.astext(), display="block" if is_block else "inline")
    if "\\" in written:  # a command that is not known stays as it is
        logging.getLogger(__name__).warning("not all of this formula is known: %s", node.astext(), location=node)
    writer.body.append(
        f'<div class="math" style="margin: 1em 0; overflow-x: auto">{written}</div>' if is_block else written
    )
    raise nodes.SkipNode


def says_nothing(app, what, name, documented, skip, options):
    """Leaves out the fields of a named tuple, which Python documents by their number: the class says what they are."""
    return True if (getattr(documented, "__doc__", "") or "").startswith("Alias for field number") else None


def setup(app):
    for name, attack in tf_nuat.ATTACKS.items():  # shown as the function that it is called like
        setattr(tf_nuat.attacks, name, attack.function)
    app.add_html_math_renderer("mathml", (math, None), (math, None))
    app.connect("autodoc-process-signature", signature_of_defense)
    app.connect("autodoc-process-docstring", as_written)
    app.connect("autodoc-skip-member", says_nothing)
