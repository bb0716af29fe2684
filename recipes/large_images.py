"""What ImageNet and ImageNet-100 share: the settings of the papers for images of 224x224.

The papers publish step sizes, and the noise of NuAT and GAT, for epsilon 8/255. For another epsilon they are scaled in
proportion. For neither dataset do the papers publish the peak of lambda, the steps of PGD adversarial training or FBF's
schedule. Those of CIFAR-10 are used, without tuning.
"""

from tf_nuat.training import Recipe, ScheduleSpec

EPOCHS = 120
PAPERS = "Sriramanan et al. 2020 (schedule, GAT) and 2021 (NuAT, claims)"
FBF = {
    "epochs": 30,
    "learning_rate": ScheduleSpec("triangle", peak=0.2, up=15, down=15),
    "weight_decay": 5e-4,
    "source": "Wong et al. 2020 (CIFAR-10); claims of Sriramanan et al. 2021",
}


def recipes(dataset, network, epsilon, measures, claimed=None):
    """Returns the recipes, a dict of defense to `Recipe`.

    The learning rate is 0.1, divided by 10 after epochs 60 and 90 of 120, as published for GAT (Sriramanan et al.,
    2020); their code takes f(x) in inference mode, as here. SAT has the 100 epochs of Vivek and Babu (2020), who do not
    state the first learning rate. Its noise and its small epsilon are those of CIFAR-10, 2/255 for 8/255.

    Args:
        dataset, network, epsilon, measures: as in `Recipe`.
        claimed: dict of defense to what `Recipe` takes as `claimed`.
    """
    noise = {"alpha": epsilon / 2}
    pgd_10 = {"steps": 10, "step_size": epsilon / 4}

    def recipe(defense, settings=None, **defense_options):
        return Recipe(
            dataset=dataset,
            network=network,
            network_options={"stem": "imagenet"},
            defense=defense,
            epsilon=epsilon,
            defense_options=defense_options,
            measures=measures,
            selection_images=500,  # they stay in memory: 0.3 GB
            claimed=(claimed or {}).get(defense, {}),
            **{
                "epochs": EPOCHS,
                "learning_rate": ScheduleSpec("divide", start=0.1, factor=10, epochs=[60, 90]),
                "weight_decay": 1e-4,
                "source": PAPERS,
                **(settings or {}),
            },
        )

    sat = {
        "epochs": 100,
        "learning_rate": ScheduleSpec("divide", start=0.1, factor=5, epochs=[26, 51, 76]),
        "weight_decay": 5e-4,
        "source": "Vivek and Babu 2020, section 5 and table 5",
    }
    # Lambda is seven times as large after epoch 90.
    gat = {**noise, "guidance_weight": ScheduleSpec("divide", start=20, factor=1 / 7, epochs=[90])}
    return {
        "nuat": recipe("nuat", **noise, nuclear_weight=ScheduleSpec("ramp", peak=4.5, epochs=108)),
        "nuat_wa": recipe("nuat_wa", **noise, nuclear_weight=ScheduleSpec("ramp", peak=4.0, epochs=EPOCHS)),
        "gat": recipe("gat", **gat),
        "gat_wa": recipe("gat_wa", **gat),
        "fbf": recipe("fbf", FBF),
        "rfgsm_at": recipe("rfgsm_at"),
        "sat_r1": recipe("sat_r1", sat, regularizer_weight=0.05, pairs=1, steps=7),
        "sat_r2": recipe("sat_r2", sat, regularizer_weight=3.0, alpha=epsilon / 4),
        "sat_r3": recipe("sat_r3", sat, regularizer_weight=1.0, tau=0.6, epsilon_low=epsilon / 4, alpha=epsilon / 4),
        "pgd_at": recipe("pgd_at", **pgd_10),
        "trades": recipe("trades", **pgd_10),
        "awp": recipe("awp", **pgd_10),
        "standard": recipe("standard"),
    }
