"""`tf.train.Example`, the record of TFRecord and of most ArrayRecord files, without TensorFlow: a dict of lists to bytes and back.

Protocol buffers do the work; the message is declared here, field numbers as in TensorFlow's `example.proto` and `feature.proto`.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

_LISTS = {"bytes_list": bytes, "float_list": float, "int64_list": int}


def _declare() -> type[message.Message]:
    Field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="tandem/example.proto", package="tandem", syntax="proto3")

    def add(parent, name: str, number: int, kind: int, type_name: str = "", repeated: bool = False):
        label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
        return parent.field.add(name=name, number=number, type=kind, type_name=type_name or None, label=label)

    for name, kind in (("BytesList", Field.TYPE_BYTES), ("FloatList", Field.TYPE_FLOAT), ("Int64List", Field.TYPE_INT64)):
        add(file.message_type.add(name=name), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, type_name) in enumerate(zip(_LISTS, ("BytesList", "FloatList", "Int64List"), strict=True), start=1):
        add(feature, name, number, Field.TYPE_MESSAGE, f".tandem.{type_name}").oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, Field.TYPE_STRING)
    add(entry, "value", 2, Field.TYPE_MESSAGE, ".tandem.Feature")
    add(features, "feature", 1, Field.TYPE_MESSAGE, ".tandem.Features.FeatureEntry", repeated=True)
    add(file.message_type.add(name="Example"), "features", 1, Field.TYPE_MESSAGE, ".tandem.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tandem.Example"))


_Example = _declare()


def parse(data: bytes) -> dict[str, list]:
    """The features of a record; each a list of bytes, floats or whole numbers.

    Raises:
        ValueError: no `Example`.
    """
    try:
        example = _Example.FromString(data)
    except message.DecodeError as error:
        raise ValueError(f"no tf.train.Example: {error}") from error
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = list(getattr(feature, kind).value) if kind else []
    return found


def serialize(features: Mapping[str, Any]) -> bytes:
    """A record of lists, or single values, of bytes, text, floats or whole numbers; the same bytes for the same features.

    Raises:
        TypeError: a value of another kind, or a list of several.
    """
    example = _Example()
    for name in sorted(features):
        value = features[name]
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        values = [v.encode("utf-8") if isinstance(v, str) else v for v in values]
        kinds = {type(v) for v in values} or {bytes}
        list_name = next((key for key, kind in _LISTS.items() if kinds == {kind}), None)
        if list_name is None:
            raise TypeError(
                f"{name!r} holds {', '.join(sorted(kind.__name__ for kind in kinds))}; a feature has one kind: bytes, float or int."
            )
        getattr(example.features.feature[name], list_name).value.extend(values)
        getattr(example.features.feature[name], list_name).SetInParent()
    return example.SerializeToString(deterministic=True)
