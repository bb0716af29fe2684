"""What a defense counts, whatever the optimizer: batches for schedules and draws, updates for averages, and epochs."""

import inspect
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import linear
from tf_nuat import draws, schedules
from tf_nuat.core import keras_compat

X, Y = linear.batch(16)
BATCH = tf.constant(X[:8]), tf.constant(Y[:8])

SCHEDULED = [  # those with an average read the same as those without
    (name, argument)
    for name, defense in tf_nuat.DEFENSES.items()
    for argument, each in inspect.signature(defense).parameters.items()
    if each.annotation == schedules.Weight and "_wa" not in name
]


def recompiled(defense, optimizer, **options):
    model = linear.compiled(defense, **options)
    model.compile(optimizer, run_eagerly=True)
    return model


def test_the_scheduled_weights_are_found():
    assert len(SCHEDULED) > 10 and ("nuat", "nuclear_weight") in SCHEDULED and ("awp", "awp_gamma") in SCHEDULED


@pytest.mark.parametrize("name, argument", SCHEDULED)
def test_a_weight_is_read_where_the_learning_rate_is(name, argument):
    """Keras counts batches there, also where the gradients of several make one update."""

    class Recorded(keras.optimizers.schedules.LearningRateSchedule):
        def __init__(self, value):
            self.value, self.steps = value, set()

        def __call__(self, step):
            self.steps.add(int(step))
            return tf.constant(self.value)

    weight, learning_rate = Recorded(0.5), Recorded(0.1)
    optimizer = keras.optimizers.SGD(learning_rate, gradient_accumulation_steps=4)
    model = recompiled(tf_nuat.DEFENSES[name], optimizer, **{argument: weight})
    keras_compat.batches_of(optimizer).assign(7)  # the last batch of the second update
    model.train_step(BATCH)
    assert weight.steps == learning_rate.steps == {7}


def test_draws_are_fresh_where_the_loss_is_scaled():
    """`LossScaleOptimizer` counts nothing itself."""
    optimizer = keras.optimizers.LossScaleOptimizer(tf_nuat.optimizers.CoupledSGD(0.05))
    model = recompiled(tf_nuat.FBF, optimizer)
    noise = []
    for number in range(3):
        assert model.count_batches() == number
        noise.append(draws.signs(BATCH[0], model.draw_seed).numpy())
        model.train_step(BATCH)
    assert all(np.mean(one != other) > 0.1 for one, other in itertools.pairwise(noise))


def test_a_wrong_batch_has_its_number_where_the_loss_is_scaled():
    model = recompiled(tf_nuat.Standard, keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)))
    wrong = np.where(np.arange(16) < 8, Y, linear.CLASSES)
    with pytest.raises(ValueError, match="y has values .* in batch 2 of training"):
        model.fit(tf.data.Dataset.from_tensor_slices((X, wrong)).batch(8), verbose=0)


def test_the_first_means_of_the_hybrid_are_those_of_batches():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    model = recompiled(tf_nuat.NuATH, optimizer)
    for number, loss in enumerate((1.0, 3.0, 5.0)):
        keras_compat.batches_of(optimizer).assign(number)
        model.observe({"clean_loss": tf.constant(loss)})
    assert float(model.recent_loss) == pytest.approx(3.0)


def test_the_recent_loss_of_the_hybrid_forgets_after_ten_batches():
    """The mean of the first ten, then nine parts of it and one of the next loss."""
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    model = recompiled(tf_nuat.NuATH, optimizer)
    losses = np.linspace(3.0, 1.0, 25)
    for number, loss in enumerate(losses):
        keras_compat.batches_of(optimizer).assign(number)
        model.observe({"clean_loss": tf.constant(loss, tf.float32)})
    expected = np.mean(losses[:10])
    for loss in losses[10:]:
        expected = 0.9 * expected + 0.1 * loss
    assert float(model.recent_loss) == pytest.approx(expected, rel=1e-5)


def test_the_recent_loss_of_the_hybrid_does_not_begin_at_0_after_another_defense():
    """In its second epoch, a short first one would pass for a drop."""
    before = recompiled(tf_nuat.Standard, keras.optimizers.SGD(0.1))
    keras_compat.batches_of(before.optimizer).assign(100)
    model = tf_nuat.NuATH(before.network, epsilon=linear.EPSILON)
    model.take_over(before)
    for number, (loss, mean) in enumerate([(2.0, 2.0), (4.0, 3.0)]):
        keras_compat.batches_of(before.optimizer).assign(100 + number)
        model.observe({"clean_loss": tf.constant(loss)})
        assert float(model.recent_loss) == pytest.approx(mean)
    model.compile(keras.optimizers.SGD(0.1))  # which counts from 0 again
    model.observe({"clean_loss": tf.constant(5.0)})
    assert float(model.recent_loss) == pytest.approx(5.0)


@pytest.mark.parametrize("name, argument", [("nuat", "nuclear_weight"), ("gat", "guidance_weight")])
def test_attacks_alternate_from_update_to_update(name, argument):
    """Of four batches to an update, 4 to 7 have the attack of an odd one."""
    x, y = BATCH
    start = tf.clip_by_value(x + 0.05 * draws.signs(x, 5), 0.0, 1.0)
    unguided = linear.compiled(tf_nuat.DEFENSES[name], **{argument: 0.0}).perturb(x, y, start=start)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    model = recompiled(tf_nuat.DEFENSES[name], optimizer, **{argument: 50.0})
    is_guided = []
    for number in (0, 3, 4, 7, 8):
        keras_compat.batches_of(optimizer).assign(number)
        is_guided.append(not np.allclose(model.perturb(x, y, start=start), unguided))
    assert is_guided == [False, False, True, True, False]


@pytest.mark.parametrize("last, extra_epochs", [(4, 1.0), (2, 0.75)])
def test_epochs_of_two_steps_are_counted_in_batches_of_every_fit(last, extra_epochs):
    """Half of the batches took a second step, in an epoch of 4 and in another one, which may be a part of one."""
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    model = recompiled(tf_nuat.NuATH, optimizer)
    for done, batches in (0, 4), (4, last):
        keras_compat.batches_of(optimizer).assign(done)
        model.on_epoch_begin(0)
        model.epoch_steps.assign(batches)
        model.two_step_batches.assign_add(batches / 2)
        model.on_epoch_end()
    keras_compat.batches_of(optimizer).assign(4 + last)
    assert model.extra_epochs == pytest.approx(extra_epochs)
    assert model.passes(8).input_gradient == pytest.approx(1.5)


def test_epochs_go_on_where_fit_is_called_again():
    """The attack's average has no memory in the first epoch, and would never have any."""
    model = recompiled(tf_nuat.NuAT2, keras.optimizers.SGD(0.1), attack_ema_decay=0.9)
    for number in range(2):
        model.fit(X, Y, batch_size=8, epochs=1, verbose=0)
        assert int(model.epoch) == number
        change = model.attack_network.get_weights()[0] - model.trained_network.get_weights()[0]
        assert np.max(np.abs(change)) < 1e-6 if number == 0 else np.max(np.abs(change)) > 1e-4
    model.fit(X, Y, batch_size=8, initial_epoch=2, epochs=4, verbose=0)
    assert int(model.epoch) == 3


def test_a_loop_over_batches_says_when_an_epoch_begins():
    """Otherwise all is the first epoch, which the hybrid compares with none."""
    model = linear.compiled(tf_nuat.NuATH)
    means = []
    for epoch in range(2):
        model.on_epoch_begin(epoch)
        means.append(float(model.previous_epoch_loss))
        model.train_on_batch(*BATCH)
    assert int(model.epoch) == 1 and means[0] == 0.0 and means[1] > 0.0


@pytest.mark.parametrize("has_ended, epoch", [(True, 3), (False, 2)])
def test_epochs_go_on_in_a_defense_that_takes_over(has_ended, epoch):
    before = recompiled(tf_nuat.Standard, keras.optimizers.SGD(0.1))
    keras_compat.batches_of(before.optimizer).assign(6)
    before.on_epoch_begin(2)
    if has_ended:
        before.on_epoch_end()
    model = tf_nuat.NuAT(before.network, epsilon=linear.EPSILON)
    model.take_over(before)
    model.on_epoch_begin(0)
    assert int(model.epoch) == epoch


def test_epochs_begin_again_with_a_new_optimizer():
    model = recompiled(tf_nuat.Standard, keras.optimizers.SGD(0.1))
    model.fit(X, Y, epochs=2, verbose=0)
    assert int(model.epoch) == 1
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.fit(X, Y, epochs=1, verbose=0)
    assert int(model.epoch) == 0


def test_epochs_begin_where_fit_is_told_to():
    model = recompiled(tf_nuat.Standard, keras.optimizers.SGD(0.1))
    for _ in range(2):  # no batch was trained yet
        model.on_epoch_begin(4)
        assert int(model.epoch) == 4
    model.train_step(BATCH)
    for _ in range(2):  # it was interrupted
        model.on_epoch_begin(5)
        assert int(model.epoch) == 5
    model.on_epoch_begin(9)
    assert int(model.epoch) == 9


def test_a_loss_that_is_no_number_is_none_of_the_means_of_the_hybrid():
    """Where the loss is scaled, such a step is skipped, and its batch does not count."""
    model = recompiled(tf_nuat.NuATH, keras.optimizers.SGD(0.1))
    model.on_epoch_begin(0)
    for number, loss in (0, 1.0), (1, np.nan), (1, 3.0), (2, np.inf), (2, 5.0):
        keras_compat.batches_of(model.optimizer).assign(number)
        model.observe({"clean_loss": tf.constant(loss, tf.float32)})
    assert float(model.recent_loss) == pytest.approx(3.0)
    model.on_epoch_begin(1)
    assert float(model.previous_epoch_loss) == pytest.approx(3.0)


def test_an_interrupted_epoch_is_begun_again_where_fit_is_not_told_which():
    model = recompiled(tf_nuat.Standard, keras.optimizers.SGD(0.1))
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)

    def interrupt(batch, logs):
        raise KeyboardInterrupt

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=8, epochs=1, verbose=0, callbacks=[callback])
    assert int(model.epoch) == 2
    model.fit(X, Y, batch_size=8, epochs=1, verbose=0)
    assert int(model.epoch) == 2


def test_a_list_of_callbacks_may_serve_several_fits():
    model = recompiled(tf_nuat.Standard, keras.optimizers.SGD(0.1))
    callbacks = keras.callbacks.CallbackList([], add_history=True, model=model)
    given = list(callbacks.callbacks)
    for number in range(2):
        model.fit(X, Y, batch_size=8, epochs=1, verbose=0, callbacks=callbacks)
        assert int(model.epoch) == number and callbacks.callbacks == given
