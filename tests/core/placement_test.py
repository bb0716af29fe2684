"""What the host has to know before it can go on, it computes itself: else it would wait for a GPU in every step."""

import keras
import pytest
import tensorflow as tf

import tf_nuat
from tf_nuat import schedules

WEIGHT = schedules.ramp(4.0, epochs=2, steps_per_epoch=5)
OPTIONS = {
    "nuat": {"nuclear_weight": WEIGHT},
    "nuat2_wa": {"nuclear_weight": WEIGHT},
    "gat": {"guidance_weight": WEIGHT},
    "pgd_at": {"steps": 2},
}


def conditions(graph):
    """Returns for each branch of a graph the operations behind its condition, up to variables and its arguments.

    An assertion is a branch: what it says when it fails is made of its other inputs.
    """
    found = []
    for branch in [each for each in graph.get_operations() if each.type in ("If", "StatelessIf")]:
        behind, left = set(), [branch.inputs[0].op]
        while left:
            each = left.pop()
            if each not in behind and each.type not in ("Placeholder", "ReadVariableOp", "Const"):
                behind.add(each)
                left += [tensor.op for tensor in each.inputs]
        found.append(behind)
    return found


@pytest.mark.parametrize("defense", OPTIONS)
def test_no_branch_and_no_assertion_of_a_step_waits_for_the_device(defense):
    """The graph of a step, asked for on a GPU: it is only looked at."""
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model = tf_nuat.DEFENSES[defense](network, epsilon=0.1, **OPTIONS[defense])
    model.compile(tf_nuat.optimizers.CoupledSGD(schedules.triangle(0.1, 1, 2, steps_per_epoch=5)), metrics=["accuracy"])
    model.build_state()

    def step(x, y):
        with tf.device("GPU:0"):
            return model.train_step((x, y))

    specs = tf.TensorSpec((None, 4, 4, 1), tf.float32), tf.TensorSpec((None,), tf.int64)
    graph = tf.function(step, autograph=False).get_concrete_function(*specs).graph
    found = conditions(graph)
    assert len(found) >= {"pgd_at": 1}.get(defense, 2) and all(found)  # the assertion, and whether the weight is 0
    assert [each.name for behind in found for each in behind if "CPU" not in each.device] == []
