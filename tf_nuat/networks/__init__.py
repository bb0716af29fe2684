"""Networks: functional Keras models of stock layers, from images in [0, 1] to logits; `adapt` converts others."""

from collections.abc import Callable

from tf_nuat.networks.adapt import Adapted, adapt
from tf_nuat.networks.applications import application
from tf_nuat.networks.densenet import densenet_bc_100
from tf_nuat.networks.differentiable import Differentiable, differentiable
from tf_nuat.networks.ensemble import ensemble_a, ensemble_b, ensemble_c, ensemble_d
from tf_nuat.networks.lenet import lenet_plus, mnist_cnn, two_conv
from tf_nuat.networks.pretrained import pretrained
from tf_nuat.networks.resnet import preact_resnet18, resnet18, resnet34, resnet50
from tf_nuat.networks.vgg import vgg11, vgg13, vgg19
from tf_nuat.networks.wide_resnet import wide_resnet, wrn_28_10, wrn_34_10

NETWORKS: dict[str, Callable] = {
    "application": application,
    "densenet_bc_100": densenet_bc_100,
    "ensemble_a": ensemble_a,
    "ensemble_b": ensemble_b,
    "ensemble_c": ensemble_c,
    "ensemble_d": ensemble_d,
    "lenet_plus": lenet_plus,
    "mnist_cnn": mnist_cnn,
    "preact_resnet18": preact_resnet18,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "two_conv": two_conv,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg19": vgg19,
    "wide_resnet": wide_resnet,
    "wrn_28_10": wrn_28_10,
    "wrn_34_10": wrn_34_10,
}

__all__ = ["NETWORKS", "Adapted", "Differentiable", "adapt", "differentiable", "pretrained", *NETWORKS]
