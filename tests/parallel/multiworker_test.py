"""Several processes on loopback ports train one network, and what happens where one is wrong or lost.

Each test starts the processes anew: TensorFlow's server lives as long as its process.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import typing

import numpy as np
import pytest
import tensorflow as tf

from recipes import digits
from tests.helpers import distributed, small
from tests.helpers.killed import assert_same_run, run
from tests.helpers.worker import DEFENSES
from tf_nuat import card
from tf_nuat.parallel import workers

LIMIT = 240  # seconds that processes may take, on a busy machine
RECIPE = ("recipes.digits", "--defense=nuat", "--network=lenet_plus", "--test_images=40")


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


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
    return [(worker.process.wait(timeout=LIMIT), worker.output) for worker in pair]


def errors(output):
    """Returns the error lines; where the streams of a process meet, a progress bar may stand before one."""
    return re.findall(r"(?<!CUDA )error: .*", output)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """What each of two workers ends with."""
    folder = tmp_path_factory.mktemp("workers")
    paths = [folder / f"{index}.npz" for index in range(2)]
    with started(*(("tests.helpers.worker", str(path)) for path in paths)) as pair:
        for status, output in ended(pair):
            assert status == 0, output[-2000:]
    return [dict(np.load(path)) for path in paths]


def test_all_workers_end_with_the_same_weights_and_metrics(weights):
    one, other = weights
    assert set(one) == set(other) and len(one) > 20
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.mark.parametrize("name", DEFENSES)
def test_two_processes_are_one_with_the_global_batch(name, weights):
    """Weights to 1e-5, and the loss and the accuracy of the whole batch."""
    model, history = distributed.trained(name, tf.distribute.get_strategy())
    start = distributed.network().get_weights()
    for number, (expected, initial) in enumerate(zip(model.network.get_weights(), start)):
        np.testing.assert_allclose(weights[0][f"{name}/{number}"], expected, atol=1e-5)
        assert np.max(np.abs(expected - initial)) > 1e-3  # else agreement would say nothing
    for key, values in history.items():
        np.testing.assert_allclose(weights[0][f"{name}/{key}"], values, atol=1e-5, err_msg=key)


def test_a_run_on_two_workers_survives_the_loss_of_one(tmp_path):
    """The other says so in a line; started again, both go on, and end with the bits of two that were not disturbed.

    The workers share no folder: the checkpoint, and the network that is measured, go from the chief to the other. One
    process sees the same batches, and has the same loss.
    """
    command = functools.partial(_digits, epochs=2)
    with started(*(command(tmp_path / f"whole-{index}") for index in range(2))) as pair:
        for status, output in ended(pair):
            assert status == 0, output[-2000:]

    commands = [command(tmp_path / f"worker-{index}", "--save_every=0") for index in range(2)]
    state = tmp_path / "worker-0" / "state"
    with started(*commands) as pair:
        # A checkpoint within the second epoch of 39 batches, or later.
        pair[0].wait_until(
            lambda: any(int(re.search(r"\d+", each.name)[0]) > 40 for each in state.glob("batches-*.npz"))
        )
        pair[1].process.kill()
        (status, output), _ = ended(pair)
    assert status == 1
    assert len(errors(output)) == 1 and "worker 1 of TF_CONFIG does not answer any longer" in errors(output)[0]
    assert "Traceback" not in output and not (tmp_path / "worker-0" / "card.json").exists()

    with started(*commands) as pair:
        for status, output in ended(pair):
            assert status == 0, output[-2000:]
            assert re.search(r"continuing after \d+ batches of epoch \d", output)
    assert not (tmp_path / "worker-1").exists()  # the chief alone writes
    cards = [card.read(tmp_path / name / "card.json") for name in ("worker-0", "whole-0")]
    assert cards[0].workers == 2 and cards[0].replicas == 2
    # The sums of an interrupted epoch's metrics go back to the workers in equal shares, and are rounded otherwise.
    assert_same_run(tmp_path / "worker-0", cards[0], tmp_path / "whole-0", cards[1], metrics=1e-5)
    recipe = dataclasses.replace(digits.RECIPES["nuat"], network="lenet_plus", test_images=40, epochs=2)
    (first, *_) = run(recipe, tmp_path / "one").history
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert first[key] == pytest.approx(cards[0].history[0][key], rel=1e-3), key


def _digits(out, *flags, epochs, seed=0, strategy="multiworker"):
    return *RECIPE, f"--out={out}", f"--epochs={epochs}", f"--seed={seed}", f"--strategy={strategy}", *flags


def test_two_workers_share_the_images_of_an_evaluation(tmp_path):
    """Each attacks its own, with the draws that these have in one process; the chief has the record of all."""
    images, labels = small.sample(60)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    small.undefended().save(tmp_path / "network.keras")
    command = functools.partial(_evaluation, tmp_path)
    with started(*(command(f"worker-{index}", "multiworker") for index in range(2))) as pair:
        (status, output), (other_status, other_output) = ended(pair)
    assert status == 0, output[-2000:]
    assert other_status == 0, other_output[-2000:]
    assert "Robust accuracy" in output and "Robust accuracy" not in other_output
    assert os.listdir(tmp_path / "worker-1") == ["state-1.npz"]
    one = subprocess.run([sys.executable, "-m", *command("one", "one")], capture_output=True, timeout=LIMIT)
    assert one.returncode == 0, one.stderr[-2000:]
    records = [dict(np.load(tmp_path / name / "record.npz")) for name in ("worker-0", "one")]
    np.testing.assert_array_equal(records[0]["fooled_by"], records[1]["fooled_by"])
    np.testing.assert_allclose(records[0]["distance"], records[1]["distance"], atol=1e-4)
    assert {-1, 0, 1} <= set(records[1]["fooled_by"].tolist())
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("worker-0", "one")]
    assert [row["steps"] for row in results[0]["stages"]] == [row["steps"] for row in results[1]["stages"]]


def _evaluation(folder, out, strategy):
    flags = f"--checkpoint={folder}/network.keras --dataset={folder}/data.npz --epsilon=0.04 --attack=square,pgd"
    return (
        "tf_nuat.evaluate",
        *flags.split(),
        "--options=queries=100",
        f"--out={folder}/{out}",
        f"--strategy={strategy}",
    )


def test_workers_with_different_seeds_are_told_which(tmp_path):
    with started(*(_digits(tmp_path / str(index), epochs=1, seed=index) for index in range(2))) as pair:
        for status, output in ended(pair):
            assert status == 2
            assert errors(output) == [
                "error: seed is 1 on worker 1, and 0 on the chief; allowed: the same on every worker"
            ]
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        ports = [taken.getsockname()[1], *free_ports(1)]
        with started(_digits(tmp_path, epochs=1), ports=ports) as pair:
            ((status, output),) = ended(pair)
    assert status == 2
    assert len(errors(output)) == 1 and f"localhost:{ports[0]}, whose port cannot be opened" in errors(output)[0]


def test_a_worker_that_waits_says_for_whom_and_can_be_ended(tmp_path):
    ports = free_ports(2)
    code = "import tf_nuat.parallel.workers as w; w.PATIENCE = 0.5; from absl import logging; "
    code += f"logging.set_verbosity('info'); w.start(w.Cluster(('localhost:{ports[0]}', 'localhost:{ports[1]}'), 0))"
    with running("-c", code) as worker:
        worker.wait_until(lambda: f"waiting for localhost:{ports[1]}, which no worker answers at" in worker.output)
        worker.process.terminate()
        assert worker.process.wait(timeout=LIMIT) == -15


def test_a_worker_in_training_ends_at_a_signal(tmp_path):
    """TensorFlow would only note it."""
    commands = [_digits(tmp_path / str(index), "--save_every=0", epochs=200) for index in range(2)]
    with started(*commands) as pair:
        pair[0].wait_until(lambda: list(tmp_path.glob("0/state/batches-*.npz")))
        pair[1].process.terminate()
        (status, output), (other, _) = ended(pair)
    assert other == -15 and status == 1 and len(errors(output)) == 1


def text(cluster=None, task=None, **others):
    cluster = {"worker": ["a:1", "b:2"]} if cluster is None else cluster
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0} if task is None else task, **others})


def test_the_chief_is_the_first_worker():
    assert workers.cluster(text()) == (("a:1", "b:2"), 0)
    with_chief = {"worker": ["a:1", "b:2"], "chief": ["c:3"]}
    assert workers.cluster(text(with_chief, {"type": "worker", "index": 1})) == (("c:3", "a:1", "b:2"), 2)
    assert workers.cluster(text(with_chief, {"type": "chief", "index": 0})).number == 0
    assert workers.cluster(text({"worker": ["[::1]:80", "10.0.0.1:80"]})).addresses == ("[::1]:80", "10.0.0.1:80")


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
        workers.cluster(wrong)
    assert "\n" not in str(raised.value) and "; allowed: " in str(raised.value)


def test_a_port_that_is_none_is_refused():
    with pytest.raises(ValueError, match="whose port cannot be opened"), workers.listening("localhost:99999"):
        pass


def test_a_connection_that_meets_itself_is_no_worker(monkeypatch):
    (port,) = free_ports(1)
    assert not workers._answers(f"127.0.0.1:{port}")
    with workers.listening(f"127.0.0.1:{port}"):
        assert workers._answers(f"127.0.0.1:{port}")
    (port,) = free_ports(1)
    connect, made = socket.create_connection, []

    def from_there(address, timeout):
        made.append(connect(address, timeout, source_address=("127.0.0.1", port)))
        return made[0]

    monkeypatch.setattr(socket, "create_connection", from_there)
    assert not workers._answers(f"127.0.0.1:{port}")  # where nobody listens
    assert len(made) == 1


def test_one_process_agrees_with_itself():
    strategy = tf.distribute.get_strategy()
    assert workers.count(strategy) == 1 and workers.is_chief(strategy) and workers.is_chief(None)
    workers.agree({"seed": 1}, strategy)
    assert workers.from_chief(b"abc", strategy) == b"abc"
    np.testing.assert_array_equal(workers.gathered([1, 2], strategy), [[1, 2]])
