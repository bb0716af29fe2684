"""Keras callbacks: robust validation that keeps the best network, and a backup that a killed run continues from."""

import json
import os
import pathlib

import keras

from tf_nuat import evaluate


def save_network(network, path):
    """Saves `network` at `path` (.keras), whole or not at all: a reader never meets half a file."""
    path = pathlib.Path(path)
    unfinished = path.with_name(f".unfinished-{path.name}")
    network.save(unfinished)
    os.replace(unfinished, path)


def save_json(content, path):
    """Writes `content` at `path` as JSON, whole or not at all."""
    path = pathlib.Path(path)
    unfinished = path.with_name(f".unfinished-{path.name}")
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


class RobustValidation(keras.callbacks.Callback):
    """Measures robust accuracy after each epoch, shows it as `val_robust_accuracy`, and keeps the best network.

    It judges `model.network`: the averaged network, where the defense averages weights.

    Args:
        images, labels: validation images (N, H, W, C) in [0, 1] and their labels.
        attack: function `(network, x, y) -> x_adv`, see `tf_nuat.evaluate.accuracy`.
        path: where to save the best network (.keras); None to save nothing.
        monitor: the entry of the logs that makes it the best, the higher the better.
        best: value of that to exceed, when a run continues.
        batch_size: images in a batch.
    """

    def __init__(self, images, labels, attack, *, path=None, monitor="val_robust_accuracy", best=-1.0, batch_size=250):
        super().__init__()
        self.data = (images, labels)
        self.attack = attack
        self.path = path
        self.monitor = monitor
        self.best = best
        self.batch_size = batch_size

    def on_epoch_end(self, epoch, logs=None):
        robust = evaluate.accuracy(self.model.network, self.data, self.attack, batch_size=self.batch_size)
        logs = {} if logs is None else logs
        logs["val_robust_accuracy"] = robust  # seen by the callbacks after this one: progress bar, history, TensorBoard
        if self.monitor not in logs:
            raise ValueError(f"monitor is {self.monitor!r}; allowed: {', '.join(sorted(logs))}")
        if logs[self.monitor] > self.best:
            self.best = logs[self.monitor]
            if self.path is not None:
                save_network(self.model.network, self.path)


class Backup(keras.callbacks.Callback):
    """Saves the whole state of training after each epoch, for `Backup.restore` to continue from.

    The weights, averages, optimizer and the defense's own state go to a file; then one JSON file, replaced in one
    step, is made to point to it. Killed at any moment, it leaves the state of this epoch or of the one before.
    Put it last, so that it sees what other callbacks added to the logs.

    Args:
        folder: where the state is kept.
        history: list of dicts, the logs of the epochs before.
    """

    def __init__(self, folder, *, history=()):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.history = list(history)

    def on_epoch_end(self, epoch, logs=None):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        weights = self.folder / f"epoch-{epoch + 1}.weights.h5"
        self.model.save_weights(weights, overwrite=True)
        save_json({"epochs": epoch + 1, "weights": weights.name, "history": self.history}, self.folder / "state.json")
        for older in self.folder.glob("*.weights.h5"):
            if older != weights:
                older.unlink()

    @staticmethod
    def restore(folder, model):
        """Loads the state kept in `folder`, where there is one, into the compiled `model`.

        Returns:
            the history of the epochs that were trained: a list of dicts, one per epoch; empty where nothing was kept.
        """
        path = pathlib.Path(folder) / "state.json"
        if not path.exists():
            return []
        state = json.loads(path.read_text(encoding="utf-8"))
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        model.load_weights(path.parent / state["weights"])
        return state["history"]
