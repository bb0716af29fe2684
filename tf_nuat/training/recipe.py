"""`Recipe`: an experiment as plain data."""

import dataclasses
import inspect
from typing import Any, Self

from tf_nuat import data, defenses, draws, networks, norms
from tf_nuat.core import validation
from tf_nuat.models import precision
from tf_nuat.networks import by_name
from tf_nuat.training import callbacks, other_norm, recipe_checks
from tf_nuat.training.parts import AttackSpec, ScheduleSpec, Stage, epochs_of, largest_epsilon, plain
from tf_nuat.training.recipe_json import SCHEMA, whole_from_json

CHOSEN_BY = ("val_robust_accuracy", "val_accuracy", "last")


def _field(text: str, *, flag: str | None = None, **default: Any) -> Any:
    """Returns a field of `Recipe`: what it means, and the command-line flag that changes it, where there is one."""
    return dataclasses.field(metadata={"help": text, "flag": flag}, **default)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to train, how, and how to measure it.

    It checks itself when it is made: all errors that can be found without data and network are raised then.

    Example:
        >>> from tf_nuat.training import Recipe, ScheduleSpec
        >>> schedule = ScheduleSpec("constant", value=0.05)
        >>> chosen = {"dataset": "digits", "network": "two_conv", "defense": "nuat", "learning_rate": schedule}
        >>> recipe = Recipe(**chosen, epsilon=0.1, epochs=3)
        >>> recipe.batch_size, recipe.norm
        (64, 'linf')
    """

    dataset: str = _field("a name or a path, see `data.load`.")
    network: str = _field(
        f"what to train: {', '.join(networks.NETWORKS)}; `module:function`, a function `(input_shape, num_classes, "
        "**network_options)` of your own that returns a Keras model; or a `.keras` file, which is trained further.",
        flag="network",
    )
    defense: str = _field(
        "name in `defenses.DEFENSES`; for sequential training the names of the stages, joined by '+'."
    )
    epsilon: float = _field(
        "radius of the threat model, above 0, pixels being in [0, 1]; at most 1 in the L-infinity norm.",
        flag="epsilon",
    )
    epochs: int | float = _field(
        "length of training; the times of all schedules stretch with it. A fraction where `minutes` decide.",
        flag="epochs",
    )
    learning_rate: float | ScheduleSpec = _field(
        "a number, or a `ScheduleSpec`, of which a flag changes the highest value.", flag="learning_rate"
    )
    network_options: dict[str, Any] = _field(
        "options of the network, as flags name=value with commas between: stem=imagenet; for application, "
        "name=MobileNetV2.",
        flag="network_options",
        default_factory=dict,
    )
    defense_options: dict[str, Any] = _field(
        "options of the defense, as flags name=value with commas between: nuclear_weight=2 for another highest lambda, "
        "ema_decay=0.9998 to average the weights of any defense. A weight is a number or a `ScheduleSpec`.",
        flag="options",
        default_factory=dict,
    )
    norm: str = _field(f"norm of the threat model: {', '.join(norms.NORMS)}.", flag="norm", default="linf")
    stages: tuple[Stage, ...] = _field(
        "for sequential training the `Stage`s, each with options of its own (`defense_options` then has none). Their "
        "epochs add up to `schedule_epochs`. Network, its average, optimizer and schedules go on from stage to stage.",
        default=(),
    )
    sources: tuple[str, ...] = _field(
        "source networks of ensemble adversarial training: names of networks, which are trained first, without an "
        "adversary, or `.keras` files.",
        flag="sources",
        default=(),
    )
    source_epochs: int = _field("number of epochs for which these are trained.", default=5)
    images_per_class: int | None = _field(
        "number of training images of each class, the first ones; all where it is not given.",
        flag="images_per_class",
        default=None,
    )
    data_options: dict[str, Any] = _field(
        'further keyword arguments of `data.load`: "input_shape", "augmentation", "corrupt", "class_names", of which '
        "the recipe keeps the names where a file is given.",
        default_factory=dict,
    )
    batch_size: int = _field("images per optimizer step, all devices together.", flag="batch_size", default=64)
    precision: str = _field(
        f"what training computes in: {', '.join(precision.POLICIES)}. Losses, norms, weights and the network that is "
        "kept are in float32.",
        flag="precision",
        default="float32",
    )
    synchronized_batch_norm: bool = _field(
        "BatchNorm normalizes with the statistics of the whole batch, not of each device's share.",
        flag="synchronized_batch_norm",
        default=False,
    )
    momentum: float = _field("of `CoupledSGD`, in [0, 1).", default=0.9)
    weight_decay: float = _field("of `CoupledSGD`, at least 0.", default=5e-4)
    seed: int = _field(
        "weights, data order and random starts follow from it; at least 0, below 2**31.", flag="seed", default=0
    )
    schedule_epochs: int = _field(
        "length of training that the times of the schedules are written for; `epochs` where it is not given.",
        default=None,
    )
    minutes: float | None = _field(
        "how long training and validation take together, instead of `--epochs`: the speed is measured in the first "
        "steps, and as many epochs are trained, the last perhaps in part, as end in time.",
        flag="minutes",
        default=None,
    )
    selection: AttackSpec = _field(
        "the attack that measures `val_robust_accuracy` on the validation split after each epoch.",
        default=AttackSpec("ifgsm", steps=7),
    )
    selection_images: int = _field("number of validation images that it is run on.", default=1000)
    chosen_by: str = _field(
        'which epoch\'s network is kept: that with the highest "val_robust_accuracy" or "val_accuracy", or the "last"; '
        "what the defense says (its `CHOSEN_BY`) where it is not given.",
        default=None,
    )
    patience: int | None = _field(
        "epochs without a better one that end training, if the best epoch is kept, not the last; never unless given.",
        flag="patience",
        default=None,
    )
    masking_alarm: str | None = _field(
        "what catastrophic overfitting does, see `callbacks.MaskingAlarm`: warn or stop; None switches the alarm off.",
        flag="masking_alarm",
        default="warn",
    )
    measures: dict[str, AttackSpec] = _field(
        "the attacks that are run on the test split when training has ended, by the names that the card gives them. As "
        "a flag, which of them, with commas between (clean alone for none); tf_nuat.evaluate can run them, and more, "
        "another day.",
        flag="measures",
        default_factory=dict,
    )
    test_images: int | None = _field(
        "number of test images for that; all where it is not given.", flag="test_images", default=None
    )
    claimed: dict[str, float] = _field(
        'the accuracies, in [0, 1], that a paper claims, by the names of measures, "clean" included; "autoattack" for '
        "what `tf_nuat.evaluate` finds of the finished run.",
        default_factory=dict,
    )
    source: str = _field("where settings and claims come from.", default="")

    def __post_init__(self) -> None:
        recipe_checks.check_types(self)
        self._set(dataset=data.check_name("dataset", self.dataset))
        if self.data_options.get("class_names") is not None:  # a file may change later
            names = data.read_class_names("class_names", self.data_options["class_names"])
            self._set(data_options={**self.data_options, "class_names": names})
        self._set(network=by_name.check_name("network", self.network))
        validation.number("epsilon", self.epsilon, above=0.0, at_most=largest_epsilon(self.norm))
        recipe_checks.check_numbers(self)
        recipe_checks.check_attacks(self)
        if self.schedule_epochs is None:
            self._set(schedule_epochs=self.epochs)
        self._set(stages=tuple(self.stages))
        recipe_checks.check_stages(self)
        for stage in self.plan():
            validation.one_of(f"norm (of {stage.defense})", self.norm, stage.kind.NORMS)
        kinds = [stage.kind for stage in self.plan()]
        self._choose_by(kinds)
        self._set(sources=tuple(self.sources))
        recipe_checks.check_sources(self, kinds)
        self.to_json()  # refuses what is no plain data

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _choose_by(self, kinds: list[type[defenses.Defense]]) -> None:
        """Fills in the defenses' choice of the best epoch, and of the masking alarm."""
        if not any(kind.MASKING_ALARM for kind in kinds):
            self._set(masking_alarm=None)
        if self.masking_alarm is not None:
            validation.one_of("masking_alarm", self.masking_alarm, callbacks.MaskingAlarm.ACTIONS)
        if self.chosen_by is None:
            said = {kind.CHOSEN_BY for kind in kinds}
            self._set(chosen_by=said.pop() if len(said) == 1 else defenses.Defense.CHOSEN_BY)
        validation.one_of("chosen_by", self.chosen_by, CHOSEN_BY)
        if self.chosen_by == "last" and self.patience is not None:
            validation.refuse("patience", self.patience, "not given, as the last epoch is the one that is kept")

    def plan(self) -> list[Stage]:
        """Returns the stages of training with their epochs; a single stage if there are no `stages`.

        With `minutes`, these are the epochs of the schedule, in proportion to those that are trained.
        """
        stages = self.stages or (Stage(self.defense, self.schedule_epochs, self.defense_options),)
        if self.minutes is not None:
            return list(stages)
        lengths = [stage.epochs * int(self.epochs) // self.schedule_epochs for stage in stages]
        return [dataclasses.replace(stage, epochs=length) for stage, length in zip(stages, lengths)]

    def steps(self, steps_per_epoch: int, total: int | None = None) -> list[list[int]]:
        """Returns for each stage the number of batches in each epoch: `steps_per_epoch`, or the rest in the last.

        `total`: batches of the whole training; those of `epochs` unless given.
        """
        total = round(self.epochs * steps_per_epoch) if total is None else total
        return epochs_of([stage.epochs for stage in self.plan()], total, steps_per_epoch)

    def schedule(self, value: Any, steps_per_epoch: int, stretch: Any = None) -> Any:
        """Returns a `ScheduleSpec` as a function of the step, its times stretched with `epochs`; other values as is.

        `stretch`: a variable that holds what `stretched` returns, and may be assigned later.
        """
        if not isinstance(value, ScheduleSpec):
            return value
        return value.build(steps_per_epoch=self.stretched(steps_per_epoch) if stretch is None else stretch)

    def stretched(self, steps_per_epoch: int) -> float:
        """Returns the number of steps that an epoch of the schedules takes."""
        return steps_per_epoch * self.epochs / self.schedule_epochs

    def with_options(self, **options: Any) -> Self:
        """Returns the recipe with these options of the defense, of every stage where there are stages."""
        if not self.stages:
            return dataclasses.replace(self, defense_options={**self.defense_options, **options})
        stages = (dataclasses.replace(stage, options={**stage.options, **options}) for stage in self.stages)
        return dataclasses.replace(self, stages=tuple(stages))

    def under_norm(self, norm: str, epsilon: float) -> Self:
        """Returns the recipe under another norm, without lengths or claims of the old one; see `other_norm.changes`."""
        changed = other_norm.changes(self, norm)
        return dataclasses.replace(self, norm=norm, epsilon=epsilon, claimed={}, **changed)

    def of_source(self, name: str) -> Self:
        """Returns the recipe that trains the source network `name`, without an adversary, from weights of its own."""
        return dataclasses.replace(
            self,
            seed=(self.seed + 1) % draws.LARGEST_SEED,
            network=name,
            network_options={},
            defense=defenses.WITHOUT_ADVERSARY,
            defense_options={},
            stages=(),
            sources=(),
            epochs=self.source_epochs,
            minutes=None,
            chosen_by=defenses.DEFENSES[defenses.WITHOUT_ADVERSARY].CHOSEN_BY,
            patience=None,
            masking_alarm=None,
            measures={},
            claimed={},
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the recipe as a dict of JSON values, "schema" among them, which `from_json` reads."""
        values = {field.name: plain(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"schema": SCHEMA, **values}

    @classmethod
    def from_json(cls, content: Any, source: str = "recipe") -> Self:
        """Returns the recipe from what `to_json`, of this version or an earlier one, returned.

        Args:
            content: the content of the JSON. Missing fields get their defaults.
            source: what an error calls it, for instance the path of a file.

        Raises:
            ValueError: it is not a recipe, has a later schema, or cannot be made, for instance because a file is gone.
        """
        return cls(**whole_from_json(cls, content, source))


# Adds the help text of each field to the docstring, for the documentation.
Recipe.__doc__ = "\n".join(
    [
        inspect.cleandoc(Recipe.__doc__ or ""),
        "\nAttributes:",
        *(f"    {field.name}: {field.metadata['help']}" for field in dataclasses.fields(Recipe)),
    ]
)
