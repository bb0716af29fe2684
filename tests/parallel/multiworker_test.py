"""Several processes on loopback ports train one network, and what happens where one is wrong or lost.

One pair of them does all that it can in turn: TensorFlow's server lives as long as its process, and starts slowly.
"""

import contextlib
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import typing

import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes import digits
from tests.helpers import distributed, small, worker
from tests.helpers.killed import assert_same_run, run
from tests.helpers.ports import free_ports
from tf_nuat import card
from tf_nuat.core import validation
from tf_nuat.networks import adapt
from tf_nuat.parallel import tf_config, workers

LIMIT = 240  # seconds that processes may take, on a busy machine


def config(ports, index):
    addresses = [f"localhost:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


class Worker(typing.NamedTuple):
    """A process and the file of what it prints: a pipe fills if nobody reads it, and ends with the last child."""

    process: subprocess.Popen
    file: typing.IO

    @property
    def output(self):
        return os.pread(self.file.fileno(), os.fstat(self.file.fileno()).st_size, 0).decode()  # moves no one's place

    def wait_until(self, condition):
        """Waits while the worker runs; an error if it ends, or takes too long."""
        begun = time.monotonic()
        while not condition():
            assert self.process.poll() is None and time.monotonic() - begun < LIMIT, self.output[-2000:]
            time.sleep(0.02)


@contextlib.contextmanager
def running(*command, **environment):
    """A context in which a worker runs `python` with the arguments `command`; it is killed in the end."""
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            [sys.executable, *command], env={**os.environ, **environment}, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            yield Worker(process, file)
        finally:
            process.kill()
            process.wait(timeout=LIMIT)


@contextlib.contextmanager
def started(*commands, ports=None):
    """A context in which a worker runs each of the commands, (module, arguments)."""
    ports = ports or free_ports(len(commands))
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(running("-m", *command, TF_CONFIG=config(ports, index)))
            for index, command in enumerate(commands)
        ]


def ended(pair):
    """Returns the exit status and the output of each worker."""
    return [(each.process.wait(timeout=LIMIT), each.output) for each in pair]


def errors(output):
    """Returns the error lines; where the streams of a process meet, a progress bar may stand before one."""
    return re.findall(r"(?<!CUDA )error: .*", output)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder of two workers that have done all that `tests.helpers.worker` does, and how they ended.

    The second was told to end while they trained, in the second epoch of their last run.
    """
    folder = tmp_path_factory.mktemp("workers")
    images, labels = small.sample(60)
    np.savez(folder / "data.npz", images=images, labels=labels)
    small.undefended().save(folder / "network.keras")
    with started(*(("tests.helpers.worker", str(folder), str(index)) for index in range(2))) as both:
        # A checkpoint within the second epoch of 39 batches, or later.
        both[0].wait_until(lambda: any(number > 40 for number in _batches_saved(folder / "worker-0" / "state")))
        both[1].process.terminate()
        return folder, ended(both)


def _batches_saved(state):
    return [int(re.search(r"\d+", each.name)[0]) for each in state.glob("batches-*.npz")]


@pytest.fixture(scope="module")
def weights(pair):
    """What each of two workers ends with."""
    return [dict(np.load(pair[0] / f"{index}.npz")) for index in range(2)]


def test_all_workers_end_with_the_same_weights_and_metrics(weights):
    one, other = weights
    assert set(one) == set(other) and len(one) > 20
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.mark.parametrize("name", worker.DEFENSES)
def test_two_processes_are_one_with_the_global_batch(name, weights):
    """Weights to 1e-5, and the loss and the accuracy of the whole batch."""
    model, history = distributed.trained(name, tf.distribute.get_strategy())
    start = distributed.network().get_weights()
    for number, (expected, initial) in enumerate(zip(model.network.get_weights(), start)):
        np.testing.assert_allclose(weights[0][f"{name}/{number}"], expected, atol=1e-5)
        assert np.max(np.abs(expected - initial)) > 1e-3  # else agreement would say nothing
    for key, values in history.items():
        np.testing.assert_allclose(weights[0][f"{name}/{key}"], values, atol=1e-5, err_msg=key)


def test_two_workers_share_the_images_of_an_evaluation(pair):
    """Each attacks its own, with the draws that these have in one process; the chief has the record of all."""
    folder, _ = pair
    for index in range(2):
        assert (folder / f"status-{index}").read_text().split()[0] == "0"
        assert ("Robust accuracy" in (folder / f"judged-{index}").read_text()) == (index == 0)
    assert os.listdir(folder / "judgement-1") == ["state-1.npz"]
    assert worker.judge(folder, folder / "one", "one") == 0
    records = [dict(np.load(folder / name / "record.npz")) for name in ("judgement-0", "one")]
    np.testing.assert_array_equal(records[0]["fooled_by"], records[1]["fooled_by"])
    np.testing.assert_allclose(records[0]["distance"], records[1]["distance"], atol=1e-4)
    assert {-1, 0, 1} <= set(records[1]["fooled_by"].tolist())
    results = [json.loads((folder / name / "results.json").read_text()) for name in ("judgement-0", "one")]
    assert [row["steps"] for row in results[0]["stages"]] == [row["steps"] for row in results[1]["stages"]]


def test_workers_with_different_seeds_are_told_which(pair):
    folder, _ = pair
    for index in range(2):
        assert (folder / f"status-{index}").read_text().split()[1] == "2"
        assert errors((folder / f"seeds-{index}").read_text()) == [
            "error: seed is 1 on worker 1, and 0 on the chief; allowed: the same on every worker"
        ]
        assert not (folder / f"seeds-out-{index}").exists()


def test_a_worker_in_training_ends_at_a_signal_and_the_other_says_so(pair):
    """TensorFlow would only note the signal. The other has one line."""
    folder, ((status, output), (other, _)) = pair
    assert other == -15 and status == 1
    assert len(errors(output)) == 1 and "worker 1 of TF_CONFIG does not answer any longer" in errors(output)[0]
    assert "Traceback" not in output and not (folder / "worker-0" / "card.json").exists()


def test_a_run_on_two_workers_survives_the_loss_of_one(pair):
    """Started again, both go on, and end with the bits of two that were not disturbed.

    The workers share no folder: the checkpoint, and the network that is measured, go from the chief to the other. One
    process sees the same batches, and has the same loss.
    """
    folder, _ = pair
    with started(*(("tests.helpers.worker", str(folder), str(index)) for index in range(2))) as both:
        for status, output in ended(both):
            assert status == 0, output[-2000:]
            assert re.search(r"continuing after \d+ batches of epoch \d", output)
    assert [(folder / f"status-{index}").read_text().split()[2] for index in range(2)] == ["0", "0"]
    assert not (folder / "worker-1").exists() and not (folder / "whole-1").exists()  # the chief alone writes
    cards = [card.read(folder / name / "card.json") for name in ("worker-0", "whole-0")]
    assert cards[0].workers == 2 and cards[0].replicas == 2
    # The sums of an interrupted epoch's metrics go back to the workers in equal shares, and are rounded otherwise.
    assert_same_run(folder / "worker-0", cards[0], folder / "whole-0", cards[1], metrics=1e-5)
    changes = {name.removeprefix("--"): value for name, value in worker.RECIPE.items()}
    recipe = dataclasses.replace(digits.RECIPES["nuat"], **changes, epochs=2, measures={})
    (first, *_) = run(recipe, folder / "one-process").history
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert first[key] == pytest.approx(cards[0].history[0][key], rel=1e-3), key


def test_a_port_in_use_is_named(tmp_path, monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        ports = [taken.getsockname()[1], *free_ports(1)]
        monkeypatch.setenv("TF_CONFIG", config(ports, 0))
        assert worker.train(tmp_path / "out", epochs=1) == 2
    printed = capsys.readouterr().err
    assert len(errors(printed)) == 1 and f"localhost:{ports[0]}, whose port cannot be opened" in errors(printed)[0]


def test_a_worker_that_waits_says_for_whom_and_can_be_ended(tmp_path):
    ports = free_ports(2)
    code = "import tf_nuat.parallel.tf_config as t; t.PATIENCE = 0.5; from absl import logging; "
    code += f"logging.set_verbosity('info'); t.start(t.Cluster(('localhost:{ports[0]}', 'localhost:{ports[1]}'), 0))"
    with running("-c", code) as one:
        one.wait_until(lambda: f"waiting for localhost:{ports[1]}, which no worker answers at" in one.output)
        one.process.terminate()
        assert one.process.wait(timeout=LIMIT) == -15


def test_a_worker_waits_so_long_and_no_longer():
    """One line names the address, and the flag."""
    ports = free_ports(2)
    alone = tf_config.Cluster(tuple(f"localhost:{port}" for port in ports), 0)
    with pytest.raises(workers.LostError, match=f"localhost:{ports[1]} after 0.2 seconds .--wait.") as raised:
        tf_config.start(alone, wait=0.2)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="wait is -1; allowed: a number at least 0"):
        tf_config.start(alone, wait=-1)


def test_a_worker_that_was_there_and_ended_is_waited_for_no_longer():
    """TensorFlow would wait for ever, deaf to signals: the process ends from another thread."""
    code = "import time, tf_nuat.parallel.tf_config as t\nwith t._ended_after(0.5): time.sleep(60)"
    with running("-c", code) as one:
        assert one.process.wait(timeout=LIMIT) == 1
        (line,) = errors(one.output)
    assert "does not answer after 0.5 seconds (--wait)" in line


@pytest.mark.parametrize("kind", [tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError])
def test_the_loss_of_another_worker_is_no_fault_of_a_file(kind, monkeypatch, tmp_path):
    """Variables that are made while a network is loaded are exchanged with the others."""
    path = tmp_path / "good.keras"
    small.undefended().save(path)

    def fails(*arguments, **options):
        try:
            raise kind(None, None, "/job:worker/replica:0/task:1 is gone")
        except kind as error:
            raise ValueError("layer 'dense' was never built") from error

    monkeypatch.setattr(keras.saving, "load_model", fails)
    for read in (validation.load_network, adapt_from):
        with pytest.raises(kind):
            read("--checkpoint", path)


def adapt_from(argument, path):
    return adapt(path, argument=argument)


def text(cluster=None, task=None, **others):
    cluster = {"worker": ["a:1", "b:2"]} if cluster is None else cluster
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0} if task is None else task, **others})


def test_the_chief_is_the_first_worker():
    assert tf_config.cluster(text()) == (("a:1", "b:2"), 0)
    with_chief = {"worker": ["a:1", "b:2"], "chief": ["c:3"]}
    assert tf_config.cluster(text(with_chief, {"type": "worker", "index": 1})) == (("c:3", "a:1", "b:2"), 2)
    assert tf_config.cluster(text(with_chief, {"type": "chief", "index": 0})).number == 0
    assert tf_config.cluster(text({"worker": ["[::1]:80", "10.0.0.1:80"]})).addresses == ("[::1]:80", "10.0.0.1:80")


@pytest.mark.parametrize(
    "wrong, words",
    [
        ("", "TF_CONFIG is not set; allowed: "),
        ("{", "TF_CONFIG is no JSON "),
        ("[]", "TF_CONFIG has not the entries cluster and task"),
        ('{"cluster": {}}', "TF_CONFIG has not the entries cluster and task"),
        (text(task={"type": "worker"}), "TF_CONFIG has not the entries cluster and task"),
        (text({"worker": 3}), "TF_CONFIG has not the entries cluster and task"),
        (text({"worker": ["a:1"], "ps": ["b:2"]}), "TF_CONFIG has the job 'ps'"),
        (text({"worker": ["a:1"], "chief": ["b:2", "c:3"]}), "TF_CONFIG has 2 chiefs"),
        (text({"worker": ["a"]}), "TF_CONFIG has the address 'a', which is not host:port"),
        (text({"worker": [3]}), "TF_CONFIG has the address 3, which is not host:port"),
        (text({"worker": ["http://a:1"]}), "TF_CONFIG has the address 'http://a:1', which is not host:port"),
        (text({"worker": ["a:1", "a:1"]}), "TF_CONFIG has the same address twice"),
        (text(task={"type": "worker", "index": 2}), "TF_CONFIG says that this is worker 2, which the cluster has not"),
        (text(task={"type": "worker", "index": -1}), "TF_CONFIG says that this is worker -1"),
        (text(task={"type": "worker", "index": "0"}), "TF_CONFIG says that this is worker 0"),
        (text(task={"type": "chief", "index": 0}), "TF_CONFIG says that this is chief 0"),
    ],
)
def test_a_wrong_configuration_is_refused_in_a_line(wrong, words):
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        tf_config.cluster(wrong)
    assert "\n" not in str(raised.value) and "; allowed: " in str(raised.value)


def test_a_port_that_is_none_is_refused():
    with pytest.raises(ValueError, match="whose port cannot be opened"), tf_config.listening("localhost:99999"):
        pass


def test_a_connection_that_meets_itself_is_no_worker(monkeypatch):
    (port,) = free_ports(1)
    assert not tf_config._answers(f"127.0.0.1:{port}")
    with tf_config.listening(f"127.0.0.1:{port}"):
        assert tf_config._answers(f"127.0.0.1:{port}")
    (port,) = free_ports(1)
    connect, made = socket.create_connection, []

    def from_there(address, timeout):
        made.append(connect(address, timeout, source_address=("127.0.0.1", port)))
        return made[0]

    monkeypatch.setattr(socket, "create_connection", from_there)
    assert not tf_config._answers(f"127.0.0.1:{port}")  # where nobody listens
    assert len(made) == 1


def test_one_process_agrees_with_itself():
    strategy = tf.distribute.get_strategy()
    assert workers.count(strategy) == 1 and workers.is_chief(strategy) and workers.is_chief(None)
    workers.agree({"seed": 1}, strategy)
    assert workers.from_chief(b"abc", strategy) == b"abc"
    np.testing.assert_array_equal(workers.gathered([1, 2], strategy), [[1, 2]])
