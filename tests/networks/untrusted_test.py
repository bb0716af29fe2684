"""Files of networks that were made to do harm: each is refused in one line, nothing is run, no other file is read."""

import io
import json
import random
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_nuat.core import validation
from tf_nuat.networks import adapt, by_name, untrusted, untrusted_graph

SECRET = np.arange(640, dtype=np.float32).reshape(64, 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a network of 64 pixels and ten classes in both forms of Keras, and files not to be read."""
    path = tmp_path_factory.mktemp("networks")
    image = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(10, activation="linear", name="dense")(keras.layers.Flatten(name="flatten")(image))
    network = keras.Model(image, outputs)
    network.save(path / "network.keras")
    network.save(path / "network.h5")
    with h5py.File(path / "secret.h5", "w") as file:
        file["secret"] = SECRET
    SECRET.tofile(path / "secret.bin")
    return path


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(folder, out, kind, *, config=None, weights=None, **others):
    """Writes the network with what the functions `config` and `weights` make of its own, or with other members."""
    path = out / f"network.{kind}"
    if kind == "h5":
        path.write_bytes((folder / "network.h5").read_bytes())
        with h5py.File(path, "r+") as file:
            if config:
                found = json.loads(file.attrs["model_config"])
                file.attrs["model_config"] = json.dumps(config(found) or found)
            if weights:
                weights(file)
        return path
    content = members(folder / "network.keras")
    if config:
        found = json.loads(content["config.json"])
        content["config.json"] = json.dumps(config(found) or found)
    if weights:
        file = io.BytesIO(content["model.weights.h5"])
        with h5py.File(file, "r+") as opened:
            weights(opened)
        content["model.weights.h5"] = file.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, each in {**content, **others}.items():
            archive.writestr(name, each)
    return path


def layer(name, **changes):
    def config(found):
        for each in found["config"]["layers"]:
            if each["config"].get("name") == name:
                each.update(changes)

    return config


def flatten_as(where, class_name, **config):
    given = {"module": where, "class_name": class_name, "registered_name": class_name}
    return layer("flatten", **given, config={"name": "flatten", **config})


def function_of(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def activation(module, name):
    def config(found):
        for each in found["config"]["layers"]:
            if each["class_name"] == "Dense":
                each["config"]["activation"] = function_of(module, name)

    return config


def flatten_of_keras_2(class_name, **config):
    """The place of a layer in the form of Keras 2, which does not say the module."""

    def change(found):
        for each in found["config"]["layers"]:
            if each["config"].get("name") == "flatten":
                for key in ("module", "registered_name", "build_config"):
                    each.pop(key, None)
                each.update(class_name=class_name, config=config)

    return change


def of_keras_2(change):
    """In the form of the `.keras` files of Keras 2, whose modules are mended."""
    return lambda found: {**(change(found) or found), "module": "keras.src.engine.functional"}


def mended_into_code(found):
    """A name with a stroke, which gets another character instead wherever it stands."""
    for each in found["config"]["layers"]:
        if each["config"].get("name") == "flatten":
            each["name"] = "_/lambda__"
        if each["class_name"] == "Dense":
            each["config"]["activation"] = {"class_name": "_/lambda__", "config": {"value": "4wAA"}}


def deep(levels):
    def config(found):
        for _ in range(levels):
            found = [found]
        return {"class_name": "Functional", "config": found}

    return config


MARK = "{mark}"  # the path of a file that code would make
CONFIGS = {
    "Lambda": (flatten_as("keras.layers", "Lambda", function=["4wAA", None, None]), "a Lambda layer: Python code"),
    "Lambda of a function of Keras": (
        flatten_as(
            "keras.layers",
            "Lambda",
            function={"module": "keras.utils", "class_name": "function", "config": "get_file"},
            arguments={"fname": "pwned", "origin": "file:///etc/passwd", "cache_dir": MARK},
        ),
        "a Lambda layer",
    ),
    "bytes of code": (
        layer("dense", config={"units": 10, "activation": {"class_name": "__lambda__", "config": {"value": "4wAA"}}}),
        "Python code of whoever saved it",
    ),
    "Lambda in a file of Keras 2": (
        of_keras_2(flatten_as("keras.layers", "Lambda", function=["4wAA", None, None])),
        "a Lambda layer: Python code",
    ),
    "bytes of code in a name that is mended": (mended_into_code, "Python code of whoever saved it"),
    "Lambda in a name with a dot": (
        flatten_as("keras", "layers.Lambda", function=function_of("keras.activations", "relu")),
        "a Lambda layer: Python code",
    ),
    "a graph in a name with a dot": (
        flatten_as("keras", "layers.TFSMLayer", filepath="/elsewhere"),
        "a TFSMLayer layer: a graph",
    ),
    "a function in a name with a dot": (
        activation("keras", "visualization.plot_image_gallery"),
        "an object of keras.visualization: no part of a network",
    ),
    "a package of the current folder": (flatten_as("keras_cv.layers", "Flatten"), "only by --import keras_cv"),
    "os.system": (flatten_as("os", "system", command=f"touch {MARK}"), "Keras cannot read ("),
    "subprocess": (flatten_as("subprocess", "check_output", args=["touch", MARK]), "Keras cannot read ("),
    "exec": (flatten_as("builtins", "exec", source=f"open('{MARK}', 'w')"), "Keras cannot read ("),
    "get_file": (flatten_as("keras.src.utils.file_utils", "get_file", fname=MARK), "Keras cannot read ("),
    "os.system as an activation": (activation("os", "system"), "Keras cannot read ("),
    "exec as an activation": (activation("builtins", "exec"), "Keras cannot read ("),
    "unsafe": (activation("keras.config", "enable_unsafe_deserialization"), "keras.config: no part of a network"),
    "a download": (activation("keras.datasets.mnist", "load_data"), "keras.datasets.mnist: no part of a network"),
    "a reader": (activation("keras.utils", "load_img"), "keras.utils: no part of a network"),
    "a pickle of torch": (
        flatten_as("keras.layers", "TorchModuleWrapper", module="gASVFAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOULg=="),
        "a TorchModuleWrapper layer",
    ),
    "a graph elsewhere": (flatten_as("keras.layers", "TFSMLayer", filepath="/elsewhere"), "a TFSMLayer layer: a graph"),
    "a vocabulary": (flatten_as("keras.layers", "StringLookup", vocabulary="/etc/passwd"), "Keras cannot read ("),
    "units": (layer("dense", config={"name": "dense", "units": 10**9}), "it describes 65,000,000,000 weights, and has"),
    "more units": (layer("dense", config={"name": "dense", "units": 10**400}), "Keras cannot read ("),
    "brackets": (deep(400), "it is nested more than 100 levels deep"),
    "a list": (lambda found: [1], "is a list"),
    "text for layers": (lambda found: {"class_name": "Functional", "config": {"layers": "text"}}, "("),
    "numbers for layers": (lambda found: {"class_name": "Sequential", "config": [1, None]}, "("),
}


def refused(path):
    """Returns the line by which `adapt` refuses a file."""
    with pytest.raises(ValueError) as caught:
        adapt(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and len(line) < 700
    return line


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_data(name, kind, folder, tmp_path):
    config, words = CONFIGS[name]
    mark = tmp_path / "mark"

    def marked(found):
        return json.loads(json.dumps(config(found) or found).replace(MARK, str(mark)))

    path = changed(folder, tmp_path, kind, config=marked)
    assert words in refused(path)
    with h5py.File(folder / "network.h5") as file:  # nor by its description alone
        content = json.loads(file.attrs["model_config"]) if kind == "h5" else None
    content = content or json.loads(members(folder / "network.keras")["config.json"])
    (tmp_path / "network.json").write_text(json.dumps(marked(content)))
    if name not in ("units",):  # for which there are no weights to compare with
        with pytest.raises(ValueError) as caught:
            by_name.architecture("network", str(tmp_path / "network.json"))
        assert "\n" not in str(caught.value) and "network.json" in str(caught.value)
    assert not mark.exists()


MODULE = """
from shutil import rmtree

from keras.layers import Lambda as Shown


def erase(path):
    rmtree(path)


def doubled(x):
    return 2.0 * x
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module of the user's own, which imports functions of others."""
    (tmp_path / "own_layers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_layers"
    sys.modules.pop("own_layers", None)


OWN = {
    "rmtree": (lambda kept: flatten_of_keras_2("rmtree", path=str(kept)), "'rmtree'"),
    "erase": (lambda kept: flatten_of_keras_2("erase", path=str(kept)), "'erase' where a class belongs"),
    "serialize": (lambda kept: flatten_of_keras_2("serialize", layer=1), "'serialize' where a class belongs"),
    "Shown": (lambda kept: flatten_of_keras_2("Shown", function=function_of("builtins", "doubled")), "'Shown'"),
}


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("name", OWN)
def test_a_file_calls_no_function_of_a_module_that_is_imported(name, kind, folder, own_module, tmp_path):
    make, words = OWN[name]
    kept = tmp_path / "kept"
    kept.mkdir()
    path = changed(folder, tmp_path, kind, config=make(kept))
    with pytest.raises(ValueError) as caught:
        adapt(path, modules=[own_module])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert kept.is_dir()


def test_a_function_of_a_module_that_is_imported_may_be_an_activation(folder, own_module, tmp_path):
    path = changed(folder, tmp_path, "keras", config=activation(own_module, "doubled"))
    images = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype(np.float32)
    expected = 2.0 * np.asarray(adapt(folder / "network.keras").network(images))
    np.testing.assert_allclose(adapt(path, modules=[own_module]).network(images), expected, rtol=1e-5)


def the_kernel(file):
    """Returns the group and the name of the kernel."""
    found = []
    file.visititems(lambda name, each: found.append(each) if getattr(each, "shape", None) == (64, 10) else None)
    return found[0].parent, found[0].name.rsplit("/", 1)[1]


def in_place_of_the_kernel(make):
    def weights(folder):
        def change(file):
            group, name = the_kernel(file)
            del group[name]
            make(folder, group, name)

        return change

    return weights


def virtual(folder, group, name):
    layout = h5py.VirtualLayout((64, 10), "f4")
    layout[:] = h5py.VirtualSource(folder / "secret.h5", "secret", (64, 10))
    group.create_virtual_dataset(name, layout)


def external(folder, group, name):
    group.create_dataset(name, (64, 10), "f4", external=[(str(folder / "secret.bin"), 0, h5py.h5f.UNLIMITED)])


def huge(folder, group, name):
    group.create_dataset(name, (2**34, 16), "f4", chunks=(1024, 16), compression="gzip")


def nested(folder, group, name):
    for _ in range(300):
        group = group.create_group("g")
    group[name] = h5py.SoftLink("/somewhere")


WEIGHTS = {
    "an external link": (lambda f, g, n: g.__setitem__(n, h5py.ExternalLink(f / "secret.h5", "secret")), "a ExternalL"),
    "a soft link": (lambda f, g, n: g.__setitem__(n, h5py.SoftLink("/somewhere")), "a SoftLink, where weights belong"),
    "external storage": (external, "weights that are in another file"),
    "a virtual dataset": (virtual, "weights that are in another file"),
    "a shape of a tebibyte": (huge, "it would become 1,099,511,6"),
    "a link deep in groups": (nested, "a SoftLink, where weights belong"),
}


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_those_of_the_file(name, kind, folder, tmp_path, monkeypatch):
    make, words = WEIGHTS[name]
    path = changed(folder, tmp_path, kind, weights=in_place_of_the_kernel(make)(folder))
    monkeypatch.setattr(keras.saving, "load_model", lambda *arguments, **options: pytest.fail("Keras has read it"))
    assert words in refused(path)
    with pytest.raises(ValueError, match="which does not fit the architecture"):
        adapt(path, architecture=keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()]))
    with pytest.raises(ValueError, match="which Keras cannot read"):
        validation.load_network("network", path)


@pytest.mark.parametrize("name", ["../../out", "/tmp/out", "assets/../../out", "..\\out"])
def test_an_archive_has_no_places_outside_of_it(name, folder, tmp_path):
    path = changed(folder, tmp_path, "keras", **{name: b"x"})
    assert "a place outside of it" in refused(path)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "other"])
def test_an_archive_that_would_become_far_larger_is_refused_before_it_is_unpacked(name, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tf_nuat.core.npz_input.LARGE", 2**20)
    path = tmp_path / "network.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in {**members(folder / "network.keras"), name: bytes(2**23)}.items():
            archive.writestr(each, content)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *arguments: pytest.fail("it was unpacked"))
    assert "it would become 8," in refused(path)


def test_what_is_read_is_what_was_looked_at(folder, tmp_path):
    """An archive named `.hdf5`, within which another network is where HDF5 may begin."""
    path = tmp_path / "network.hdf5"
    with zipfile.ZipFile(path, "w") as archive:
        header = 30 + len("other")
        archive.writestr("padding", bytes(4096 - 30 - len("padding") - header))
        archive.writestr("other", (folder / "network.h5").read_bytes())
        for name, content in members(folder / "network.keras").items():
            archive.writestr(name, content)
    assert h5py.is_hdf5(path)
    expected = keras.saving.load_model(folder / "network.keras").get_weights()
    np.testing.assert_array_equal(adapt(path).network.get_weights()[0], expected[0])


def test_the_size_of_a_network_is_found_without_making_it_and_without_drawing(folder):
    config = json.loads(members(folder / "network.keras")["config.json"])
    before, kept = random.getstate(), json.dumps(config)
    untrusted.check_size(config, {}, 650)
    assert random.getstate() == before and json.dumps(config) == kept
    config["config"]["layers"][2]["config"]["units"] = 2**26
    with pytest.raises(ValueError, match="it describes 4,362,076,160 weights, and has 650"):
        untrusted.check_size(config, {}, 650)
    untrusted.check_size(config, {}, 65 * 2**26)


@pytest.mark.parametrize(
    "contents", [b"", b"no graph", bytes(100), b"\x0a\xff\xff\xff\xff\x0f", b"\x08\x01\x12\x02\x0a\x00"]
)
def test_a_damaged_graph_is_refused_in_one_line(contents, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(contents)
    refused(tmp_path)


def test_a_heap_in_which_hdf5_would_go_round_for_ever_is_refused(folder, tmp_path):
    contents = bytearray((folder / "network.h5").read_bytes())
    heap = contents.find(b"GCOL")
    assert heap > 0
    contents[heap + 16 : heap + 32] = bytes(16)  # a free object that takes no place
    (tmp_path / "network.h5").write_bytes(contents)
    assert "it has a damaged heap" in refused(tmp_path / "network.h5")


def graph(folder, effect):
    """Saves a graph of TensorFlow 2 that does something beside computing, and returns its folder."""
    module = tf.Module()

    def serve(images):
        effect()
        return tf.reshape(images, (-1, 64))[:, :3]

    module.serve = tf.function(serve, input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.float32)])
    tf.saved_model.save(module, str(folder / "graph"), signatures=module.serve)
    return folder / "graph"


def print_to_file(path):
    tf.print("text", output_stream=f"file://{path}")


def write_summary(path):
    writer = tf.raw_ops.SummaryWriter()
    options = {"max_queue": 1, "flush_millis": 1, "filename_suffix": ""}
    tf.raw_ops.CreateSummaryFileWriter(writer=writer, logdir=str(path), **options)


def keep_in_file(path):
    tf.data.Dataset.range(3).cache(str(path)).reduce(np.int64(0), lambda x, y: x + y)


def save_weights(path):
    tensor = {"tensor_names": ["a"], "shape_and_slices": [""]}
    tf.raw_ops.SaveV2(prefix=str(path), tensors=[tf.constant(1.0)], **tensor)


def restore_weights(path):
    tensor = {"tensor_names": ["a"], "shape_and_slices": [""]}
    tf.raw_ops.RestoreV2(prefix=str(path), dtypes=[tf.float32], **tensor)


EFFECTS = {
    "PrintV2": print_to_file,
    "WriteFile": lambda path: tf.io.write_file(str(path), "text"),
    "CreateSummaryFileWriter": write_summary,
    "CacheDatasetV2": keep_in_file,
    "SaveV2": save_weights,
    "RestoreV2": restore_weights,
}


@pytest.mark.parametrize("operation", EFFECTS)
def test_a_graph_that_reaches_beyond_itself_is_refused(operation, tmp_path):
    out = tmp_path / "out"
    path = graph(tmp_path, lambda: EFFECTS[operation](out))
    assert f"with the operation {operation}, which reaches beyond it" in refused(path)
    assert not list(tmp_path.glob("out*"))


def test_a_graph_may_print_to_the_terminal(tmp_path):
    path = graph(tmp_path, lambda: tf.print("", end="", output_stream=sys.stderr))
    assert untrusted_graph.reaching_operation(path) is None


@pytest.mark.parametrize("misused", [False, True])
def test_a_graph_of_tensorflow_1_has_a_saver_which_its_signature_does_not_run(misused, tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        images = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 1), name="images")
        logits = tf.reshape(images, (-1, 64)) @ tf.compat.v1.get_variable("kernel", (64, 3))
        if misused:
            tensor = {"tensor_names": ["a"], "shape_and_slices": [""], "tensors": [tf.constant(1.0)]}
            with tf.control_dependencies([tf.raw_ops.SaveV2(prefix=str(tmp_path / "out"), **tensor)]):
                logits = tf.identity(logits)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "graph"), {"images": images}, {"classes": logits})
    assert untrusted_graph.reaching_operation(tmp_path / "graph") == ("SaveV2" if misused else None)
