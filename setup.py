"""Installation: `pip install .`, with a tried set of versions `pip install -c constraints.txt .`."""

import os
import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
# Where the repository is, for links of the package's page: without it, that page names files and links none of them.
HOME = os.environ.get("TF_NUAT_HOME", "").rstrip("/")
PLACES = {
    "Homepage": "",
    "Documentation": "/blob/main/docs/index.md",
    "Changelog": "/blob/main/CHANGELOG.md",
    "Issues": "/issues",
}


def version() -> str:
    """Returns the version, which the package has in one place."""
    return re.search(r'^__version__ = "(.+)"$', (ROOT / "tf_nuat" / "__init__.py").read_text("utf-8"), re.MULTILINE)[1]


def long_description() -> str:
    """Returns the README for places outside the repository, in which its relative links lead nowhere.

    With HOME they lead there. Without it, text stays of them, and the pictures are left out.
    """
    text = (ROOT / "README.md").read_text("utf-8")
    text = re.sub(r"^<!-- .* -->\n", "", text, flags=re.MULTILINE)  # the marks of what is rendered
    link = r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?!https?://|#)([^)\s]+)\)"

    def outside(found: re.Match) -> str:
        is_picture, label, target = found.groups()
        if HOME:
            label = re.sub(link, outside, label)
            return f"{is_picture}[{label}]({HOME}/{'raw' if is_picture else 'blob'}/main/{target})"
        return "" if is_picture else re.sub(link, outside, label)

    return re.sub(link, outside, text)


setup(
    name="tf-nuat",
    version=version(),
    description="Robust Keras image classifiers by single-step adversarial training, and proof that they are robust",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="the tf_nuat maintainers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=[
        "adversarial training",
        "adversarial robustness",
        "AutoAttack",
        "gradient masking",
        "Keras",
        "TensorFlow",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Security",
        "Typing :: Typed",
    ],
    project_urls={name: f"{HOME}{path}" for name, path in PLACES.items()} if HOME else {},
    python_requires=">=3.11",
    packages=find_packages(include=["tf_nuat*", "sanity*", "recipes*"]),
    package_data={
        "recipes": ["*.html"],
        "sanity": ["report/*.html", "figures/*.html"],
        "tf_nuat": [
            "data/imagenet100_wnids.txt",
            "networks/pretrained/*.json",
            "networks/pretrained/*.keras",
            "py.typed",
        ],
    },
    entry_points={"console_scripts": ["tf-nuat = recipes.console:main"]},
    install_requires=[
        "tensorflow>=2.20",
        "keras>=3.15.1",  # before, a network's file could have another file read (CVE-2026-1669)
        "tensorflow-datasets>=4.9.10",
        "cleverhans>=4.0",
        "numpy>=1.26",
        "h5py>=3.11",
        "pillow>=10.0.1",  # before, a WebP image could write beyond its memory (CVE-2023-4863)
        "scipy>=1.11",
        "scikit-learn>=1.3",
        "matplotlib>=3.8",
        "absl-py>=2.1",
        "tqdm>=4.66",
        "jinja2>=3.1",
        "tensorboard>=2.20",  # what Keras's TensorBoard callback writes with; TensorFlow no longer brings it
        "importlib_resources>=6.4",  # TensorFlow Datasets imports it without declaring it
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.20"],
        "test": [
            "pytest>=8.0",
            "pytest-cov>=7.0",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.17",
            "mypy>=1.18",
            "twine>=6.0",
        ],
        "bench": ["py-cpuinfo>=9.0"],
        "docs": ["sphinx>=8.1", "myst-nb>=1.2", "furo>=2024.8.6", "sphinx-copybutton>=0.5.2", "latex2mathml>=3.77"],
    },
)
