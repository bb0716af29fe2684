"""The judgement as a model card, Markdown with a YAML header, as model hubs read it."""

import html
import json
import re

from sanity import verdict
from sanity.report.html import in_order


def model_card(judgement):
    """Returns the card of a `Judgement` as text.

    The header has the accuracies under `model-index`. Text from others, names of datasets for instance, is quoted there
    and escaped in the body. A network that is not judged has only the accuracy without attack.
    """
    subject, robust, provenance = judgement.subject, judgement.robust, judgement.provenance
    name, dataset = str(subject["network"]), str(provenance.get("dataset") or "images")
    threat = f"{subject['norm']}, epsilon {subject['epsilon']:.4g}"
    is_judged = judgement.verdict != verdict.NOT_JUDGED
    in_the_worst_case = f"""
    - type: accuracy
      name: {_quoted(f"Accuracy under {robust.against}, {threat}")}
      value: {robust.accuracy:.4f}"""
    header = f"""---
library_name: keras
pipeline_tag: image-classification
tags:
- adversarial-robustness
model-index:
- name: {_quoted(name)}
  results:
  - task:
      type: image-classification
    dataset:
      name: {_quoted(dataset)}
      type: {_quoted(dataset)}
      split: {_quoted(provenance.get("split") or "test")}
    metrics:
    - type: accuracy
      name: Accuracy without attack
      value: {judgement.clean.accuracy:.4f}{in_the_worst_case if is_judged else ""}
---"""
    table = "\n".join(
        f"| {label} | {each.accuracy:.1%} | {each.interval[0]:.1%} to {each.interval[1]:.1%} | {each.images:,} |"
        for label, each in (_rows(judgement) if is_judged else [("without attack", judgement.clean)])
    )
    answers = f"- Masked gradients: {judgement.masking}. Robustness: {judgement.robustness}.\n"
    if judgement.not_asked_for:
        answers += f"- Checks that were not asked for: {_escaped(', '.join(judgement.not_asked_for))}.\n"
    classes, shape = subject["num_classes"], _shape(subject["input_shape"])
    about = (
        f"- Dataset: {_escaped(dataset)}. {classes} classes, images of {shape}, pixels in\n  [0, 1]. "
        f"{subject['parameters']:,} parameters.\n"
    )
    how = f"- The attacker knows the network. {_escaped(_strongest(robust))}\n- {_escaped(judgement.rule)}\n"
    confidence = f"{judgement.settings.confidence:.0%}"
    return f"""{header}

# {_escaped(name)}

{_escaped(judgement.headline)} {_escaped(judgement.advice)}

| accuracy, {_escaped(threat)} | | {confidence} interval | images |
|---|---|---|---|
{table}

{answers + about + how if is_judged else about}
Judged by tf_nuat {subject["versions"]["tf_nuat"]}; `report.html` and `results.json` beside this card have all of it.
"""


def _rows(judgement):
    """Returns the rows of the table, pairs of a label and an `Accuracy`."""
    robust = judgement.robust
    figure = "an upper limit" if judgement.is_upper_limit else "the figure to publish"
    clean, alone, worst = "without attack", "under PGD alone", f"under {robust.against}"
    if robust.answers > 1:
        mean = f", by the mean of {robust.answers} answers"
        clean, alone, worst = f"{clean}{mean}", f"{alone}, by one answer", f"{worst}{mean}"
    elif judgement.subject["random_answers"]:
        worst = f"{worst}, where one wrong answer counts"
    return [
        (clean, judgement.clean),
        (alone, judgement.reported_by_pgd),
        (f"{worst}: {figure}", robust),
    ]


def _strongest(robust):
    """Returns the sentences about the attacks other than PGD."""
    missing = f" Not run on all images: {'; '.join(robust.left_out)}." if robust.left_out else ""
    beyond = " that PGD alone does not" if robust.answers == 1 else ""
    if not robust.fooled:
        return f"No attack fooled an image{beyond}.{missing}"
    return f"{robust.attack} fooled {robust.fooled} images{beyond}, the most of all attacks.{missing}"


def _quoted(text):
    """Returns text as a YAML string: that of JSON, which escapes a character beyond 16 bits in two halves, as one."""
    escaped = (json.dumps(each)[1:-1] if each <= "\uffff" else f"\\U{ord(each):08x}" for each in text)
    return f'"{"".join(escaped)}"'


def _escaped(text):
    """Returns text on one line and `in_order`, with the special characters of Markdown and HTML escaped."""
    line = in_order(" ".join(str(text).split()))
    return html.escape(re.sub(r"([\\`*_{}\[\]|#!~$])", r"\\\1", line), quote=False)


def _shape(shape):
    return " x ".join(map(str, shape))
