"""Checks that the graph of someone else's SavedModel only computes, and writes to the terminal at most."""

import functools
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Operations, without their version numbers, that reach files, Python, other processes or the network.
_REACHING = frozenset(
    {
        "CSVDataset",
        "CacheDataset",
        "CreateSummaryDbWriter",
        "CreateSummaryFileWriter",
        "DataServiceDataset",
        "DatasetFromGraph",  # it runs a graph that is written in a text
        "DatasetToTFRecord",
        "DebugIdentity",
        "DebugNanCount",
        "DebugNumericSummary",
        "DecodeProto",  # whose descriptors may be in a file
        "DistributedSave",
        "EagerPyFunc",
        "EncodeProto",
        "FileSystemSetConfiguration",
        "FixedLengthRecordDataset",
        "FixedLengthRecordReader",
        "GenerateVocabRemapping",
        "HostRecv",
        "HostSend",
        "ImmutableConst",
        "LMDBDataset",
        "LMDBReader",
        "ListSnapshotChunksDataset",
        "LoadAndRemapMatrix",
        "LoadDataset",
        "MatchingFiles",
        "MatchingFilesDataset",
        "PyFunc",
        "PyFuncStateless",
        "ReadFile",
        "RecordInput",
        "Recv",
        "RegisterDataset",
        "RemoteCall",
        "RemoteFusedGraphExecute",
        "Rpc",
        "SaveDataset",
        "Send",
        "SnapshotChunkDataset",
        "SnapshotDataset",
        "SnapshotDatasetReader",
        "SnapshotNestedDatasetReader",
        "SqlDataset",
        "TFRecordDataset",
        "TFRecordReader",
        "TextLineDataset",
        "TextLineReader",
        "TryRpc",
        "WholeFileReader",
        "WriteFile",
    }
)
_TERMINAL = {b"stdout", b"stderr", b"log(info)", b"log(warning)", b"log(error)"}  # where PrintV2 may write
# Operations of the functions with which every SavedModel saves and restores its weights.
_SAVING = frozenset({"MergeV2Checkpoints", "Save", "SaveSlices", "ShardedFilename", "ShardedFilespec"})
_RESTORING = frozenset({"Restore", "RestoreSlice"})


def reaching_operation(path: pathlib.Path) -> str | None:
    """Returns the name of an operation by which the SavedModel in the folder `path` reaches beyond itself.

    That is one that reaches files, Python, other processes or the network; or that saves or restores weights anywhere
    but in the SavedModel's own savers. None where there is no such operation.

    Raises:
        Exception: whatever the reader of protocol buffers raises.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    found = {node.op for graph in saved.meta_graphs for node in _nodes(graph) if _reaches(node)}
    for graph in saved.meta_graphs:
        found |= _misused_savers(graph)
    return min(found, default=None)


def _nodes(graph: Any) -> Iterator[Any]:
    """Yields all nodes of a `MetaGraphDef`, those of its functions too."""
    yield from graph.graph_def.node
    for function in graph.graph_def.library.function:
        yield from function.node_def


@functools.cache
def _kind(operation: str) -> str:
    """Returns the name of an operation as the sets of this module have it: "ExperimentalNameV2" is "Name"."""
    return re.sub(r"^_?(Experimental)?|V\d+$", "", operation)


def _reaches(node: Any) -> bool:
    if node.op == "PrintV2":  # the caller of a function may also set the stream: then there is no text here
        return "output_stream" in node.attr and node.attr["output_stream"].s not in _TERMINAL
    return _kind(node.op) in _REACHING


def _misused_savers(graph: Any) -> set[str]:
    """Returns the operations of savers that run when a SavedModel is called, or that write when it is restored."""
    called, needs = _called_by_name(graph), _needs(graph)
    restores = graph.saver_def.restore_op_name.partition(":")[0]
    found = set()
    for operation in sorted({node.op for node in _nodes(graph) if _kind(node.op) in _SAVING | _RESTORING}):
        running = _running(operation, needs)
        is_called = any(name.encode() in called for name in running)
        if is_called or (_kind(operation) in _SAVING and restores in running):
            found.add(operation)
    return found


def _is_of_objects(graph: Any) -> bool:
    """Returns whether a graph is of TensorFlow 2, which runs only its functions, not its own nodes."""
    return graph.HasField("object_graph_def")


def _called_by_name(graph: Any) -> bytes:
    """Returns the text that names all functions, or nodes, which TensorFlow calls to load a graph and to run it."""
    parts = [*graph.graph_def.library.gradient, *graph.graph_def.library.registered_gradients]
    if _is_of_objects(graph):
        parts.append(graph.object_graph_def)
    else:
        parts += graph.signature_def.values()
        parts += [each for name, each in graph.collection_def.items() if name != "savers"]
    return b"\0".join(each.SerializeToString() for each in parts)


def _needs(graph: Any) -> dict[str, set[str]]:
    """Returns what each function of a graph runs, by name, and what each node does, if the nodes are run.

    These are operations, functions, and the nodes whose outputs are taken.
    """
    found = {
        each.signature.name: set().union(*map(_operations, each.node_def)) for each in graph.graph_def.library.function
    }
    if not _is_of_objects(graph):
        for node in graph.graph_def.node:
            taken = {each.lstrip("^").partition(":")[0] for each in node.input}
            found[node.name] = found.get(node.name, set()) | _operations(node) | taken
    return found


def _operations(node: Any) -> set[str]:
    """Returns the operation of a node, which may be a function, and the functions among its attributes."""
    functions = [each for value in node.attr.values() for each in (value.func, *value.list.func)]
    return {node.op, *(each.name for each in functions)}


def _running(operation: str, needs: Mapping[str, set[str]]) -> set[str]:
    """Returns the names of all functions and nodes that run an operation, directly or through others."""
    found: set[str] = set()
    ahead = {operation}
    while ahead:
        ahead = {name for name, needed in needs.items() if name not in found and needed & ahead}
        found |= ahead
    return found
