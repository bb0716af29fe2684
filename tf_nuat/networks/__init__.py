"""Networks: functional Keras models of stock layers, from images in [0, 1] to logits."""

from tf_nuat.networks.lenet import lenet_plus, mnist_cnn
from tf_nuat.networks.resnet import preact_resnet18, resnet18
from tf_nuat.networks.wide_resnet import wide_resnet, wrn_28_10, wrn_34_10

NETWORKS = {
    "lenet_plus": lenet_plus,
    "mnist_cnn": mnist_cnn,
    "preact_resnet18": preact_resnet18,
    "resnet18": resnet18,
    "wide_resnet": wide_resnet,
    "wrn_28_10": wrn_28_10,
    "wrn_34_10": wrn_34_10,
}

__all__ = ["NETWORKS", *NETWORKS]
