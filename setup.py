"""Installation: `pip install .`, with a tried set of versions `pip install -c constraints.txt .`."""

import pathlib

from setuptools import find_packages, setup

setup(
    name="tf-nuat",
    version="0.1.0",
    description="Robust Keras image classifiers by single-step adversarial training, and proof that they are robust",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["tf_nuat*", "sanity*", "recipes*"]),
    package_data={
        "recipes": ["leaderboard.html"],
        "sanity": ["report/*.html", "figures/*.html"],
        "tf_nuat": ["data/imagenet100_wnids.txt", "py.typed"],
    },
    install_requires=[
        "tensorflow>=2.20",
        "keras>=3.15.1",  # before, a network's file could have another file read (CVE-2026-1669)
        "tensorflow-datasets>=4.9.10",
        "cleverhans>=4.0",
        "numpy>=1.26",
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
        ],
        "bench": ["py-cpuinfo>=9.0"],
        "docs": ["sphinx>=8.1", "myst-parser>=4.0", "furo>=2024.8.6", "latex2mathml>=3.77"],
    },
)
