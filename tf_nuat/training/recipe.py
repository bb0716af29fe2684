"""`Recipe`: an experiment as plain data."""

import dataclasses
import functools
import itertools
import pathlib

from tf_nuat import attacks, data, defenses, networks, norms, schedules
from tf_nuat.core import validation
from tf_nuat.models import precision
from tf_nuat.networks import by_name
from tf_nuat.training import callbacks


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to train, how, and how to measure it.

    A weight or a learning rate is a number or a pair (name in `schedules.SCHEDULES`, its arguments in epochs).
    An attack is a dict: "attack", a name in `ATTACKS`, and its settings; epsilon is the recipe's unless it is given.

    Attributes:
        dataset: a name or a path, see `data.load`.
        network: name in `networks.NETWORKS`; `module:function`, a function `(input_shape, num_classes,
            **network_options) -> keras.Model`; or the path of a `.keras` file, whose weights training begins with.
        defense: name in `defenses.DEFENSES`; for sequential training the names of the stages, joined by "+".
        epsilon: radius of the threat model, above 0; at most 1 in the L-infinity norm.
        epochs: number of epochs.
        learning_rate: highest values and times of the schedule, or a number.
        network_options, defense_options: keyword arguments of the network and of the defense.
        norm: of the threat model, "linf" or "l2", for defense and attacks.
        stages: for sequential training, one dict per stage: "defense", "epochs" and "defense_options" (which
            `defense_options` then is not). The epochs add up to `schedule_epochs`. Network, its average, optimizer and
            schedules go on from one stage to the next.
        sources: for ensemble adversarial training, the source networks: names in `networks.NETWORKS`, which are trained
            first, without an adversary, or paths of .keras files.
        source_epochs: number of epochs for which these are trained.
        images_per_class: number of training images of each class, the first ones (None: all).
        data_options: further keyword arguments of `data.load`: "input_shape", "augmentation", "corrupt".
        batch_size: images per optimizer step, all devices together.
        precision: what the network computes in while it trains, one of `precision.POLICIES`; losses, norms, weights
            and the network that is kept are in float32.
        synchronized_batch_norm: whether BatchNorm normalizes with the statistics of the whole batch, where several
            devices have a share of it each.
        momentum, weight_decay: of `CoupledSGD`.
        seed: whole number from which weights, data order and random starts follow.
        schedule_epochs: length of training that the times of the schedules were written for (default `epochs`); with
            other `epochs` all times stretch.
        selection: the attack that measures `val_robust_accuracy` on the validation split after each epoch.
        selection_images: number of validation images it is run on.
        chosen_by: which epoch's network is kept, that with the highest "val_robust_accuracy" (the default) or
            "val_accuracy" (the default for standard training, which nobody would choose by its robustness), or the
            "last" one.
        patience: number of epochs without a better one after which training ends early (None: never).
        masking_alarm: what `callbacks.MaskingAlarm` does on catastrophic overfitting: "warn" or "stop"; None: not used.
        measures: dict, name -> attack, run on the test split when training has ended.
        test_images: number of test images for that (None: all).
        claimed: dict of measures' names ("clean" included) to the accuracy that a paper claims, in [0, 1]; "autoattack"
            for what `tf_nuat.evaluate` finds of the finished run.
        source: where settings and claims come from.
    """

    dataset: str
    network: str
    defense: str
    epsilon: float
    epochs: int
    learning_rate: float | tuple
    network_options: dict = dataclasses.field(default_factory=dict)
    defense_options: dict = dataclasses.field(default_factory=dict)
    norm: str = "linf"
    stages: tuple = ()
    sources: tuple = ()
    source_epochs: int = 5
    images_per_class: int | None = None
    data_options: dict = dataclasses.field(default_factory=dict)
    batch_size: int = 64
    precision: str = "float32"
    synchronized_batch_norm: bool = False
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    schedule_epochs: int | None = None
    selection: dict = dataclasses.field(default_factory=lambda: {"attack": "ifgsm", "steps": 7})
    selection_images: int = 1000
    chosen_by: str | None = None
    patience: int | None = None
    masking_alarm: str | None = "warn"
    measures: dict = dataclasses.field(default_factory=dict)
    test_images: int | None = None
    claimed: dict = dataclasses.field(default_factory=dict)
    source: str = ""

    def __post_init__(self):
        object.__setattr__(self, "dataset", data.check_name("dataset", self.dataset))
        object.__setattr__(self, "network", by_name.check_name("network", self.network))
        validation.one_of("norm", self.norm, norms.NORMS)
        validation.number("epsilon", self.epsilon, above=0.0, at_most=1.0 if self.norm == "linf" else None)
        validation.whole_number("epochs", self.epochs, at_least=1)
        validation.whole_number("batch_size", self.batch_size, at_least=1)
        validation.one_of("precision", self.precision, precision.POLICIES)
        validation.whole_number("seed", self.seed, at_least=0)
        if self.defense == "standard":
            object.__setattr__(self, "masking_alarm", None)  # FGSM may fail on a network that was never trained on it
        if self.chosen_by is None:
            by = "val_accuracy" if self.defense == "standard" else "val_robust_accuracy"
            object.__setattr__(self, "chosen_by", by)
        validation.one_of("chosen_by", self.chosen_by, ("val_robust_accuracy", "val_accuracy", "last"))
        for name in ("images_per_class", "patience"):
            if getattr(self, name) is not None:
                validation.whole_number(name, getattr(self, name), at_least=1)
        if self.masking_alarm is not None:
            validation.one_of("masking_alarm", self.masking_alarm, callbacks.MaskingAlarm.ACTIONS)
        validation.whole_number("selection_images", self.selection_images, at_least=1)
        if self.test_images is not None:
            validation.whole_number("test_images", self.test_images, at_least=1)
        for description in (self.selection, *self.measures.values()):
            self.attack(description)
        if self.schedule_epochs is None:
            object.__setattr__(self, "schedule_epochs", self.epochs)
        self._check_stages()
        self._check_sources()

    def _check_sources(self):
        takes_sources = self.defense == "eat"
        if takes_sources != bool(self.sources):
            allowed = "names of networks or .keras files" if takes_sources else "() for all but eat"
            raise ValueError(f"sources is {self.sources!r} for {self.defense}; allowed: {allowed}")
        validation.whole_number("source_epochs", self.source_epochs, at_least=1)
        for source in self.sources:
            if source not in networks.NETWORKS and not pathlib.Path(source).is_file():
                raise ValueError(
                    f"sources has {source!r}, which is no file; allowed: {', '.join(networks.NETWORKS)}, .keras files"
                )

    def with_options(self, **options):
        """Returns the recipe with these options of the defense, of every stage where there are stages."""
        if not self.stages:
            return dataclasses.replace(self, defense_options={**self.defense_options, **options})
        stages = (
            {**stage, "defense_options": {**stage.get("defense_options", {}), **options}} for stage in self.stages
        )
        return dataclasses.replace(self, stages=tuple(stages))

    def under_norm(self, norm):
        """Returns the recipe under another norm: no paper's claims, and attacks that are PGD with its usual steps."""

        def as_pgd(attack):
            return {"attack": "pgd", "steps": attack.get("steps", 40)}

        measures = {name: as_pgd(attack) for name, attack in self.measures.items()}
        return dataclasses.replace(self, norm=norm, selection=as_pgd(self.selection), measures=measures, claimed={})

    def of_source(self, name):
        """Returns the recipe that trains the source network `name`, without an adversary, from weights of its own."""
        return dataclasses.replace(
            self,
            seed=self.seed + 1,
            network=name,
            network_options={},
            defense="standard",
            defense_options={},
            sources=(),
            epochs=self.source_epochs,
            chosen_by="val_accuracy",
            patience=None,
            masking_alarm=None,
            measures={},
            claimed={},
        )

    def _check_stages(self):
        if not self.stages:
            validation.one_of("defense", self.defense, defenses.DEFENSES)
            return
        for stage in self.stages:
            validation.one_of("stages: defense", stage["defense"], defenses.DEFENSES)
            validation.whole_number("stages: epochs", stage["epochs"], at_least=1)
        names, lengths = zip(*((stage["defense"], stage["epochs"]) for stage in self.stages))
        if self.defense != "+".join(names):
            raise ValueError(f"defense is {self.defense!r}; allowed: {'+'.join(names)}, the names of the stages")
        if self.defense_options:
            raise ValueError("defense_options is given; allowed: with stages, each has its own")
        written = " + ".join(map(str, lengths))
        if sum(lengths) != self.schedule_epochs:
            raise ValueError(f"stages take {written} epochs; allowed: {self.schedule_epochs} in sum")
        if any(length * self.epochs % self.schedule_epochs for length in lengths):
            raise ValueError(f"epochs is {self.epochs}; allowed: a number to which stages of {written} epochs stretch")

    def plan(self):
        """Returns the stages of training: tuples (name of the defense, its options, epoch in which it ends)."""
        if not self.stages:
            return [(self.defense, self.defense_options, self.epochs)]
        ends = itertools.accumulate(stage["epochs"] * self.epochs // self.schedule_epochs for stage in self.stages)
        return [(stage["defense"], stage.get("defense_options", {}), end) for stage, end in zip(self.stages, ends)]

    def schedule(self, value, steps_per_epoch):
        """Returns `value`, a number or a pair (name, arguments), as a number or a schedule of the step."""
        if not isinstance(value, (tuple, list)):
            return value
        name, arguments = value
        stretched = steps_per_epoch * self.epochs / self.schedule_epochs
        return validation.one_of("schedule", name, schedules.SCHEDULES)(**arguments, steps_per_epoch=stretched)

    def attack(self, description):
        """Returns the function `(network, x, y) -> x_adv` that the dict `description` describes."""
        settings = {"epsilon": self.epsilon, **({} if self.norm == "linf" else {"norm": self.norm}), **description}
        attack = validation.one_of("attack", settings.pop("attack"), attacks.ATTACKS)
        attack.check_settings(settings)
        return functools.partial(attack, **settings)
