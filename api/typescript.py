"""The TypeScript client of the sessions face, written from the OpenAPI document.

Each operation that the document gives a name (`x-clew-calls`) is a method; schemas are interfaces.
The module needs nothing but `fetch`: browsers, Node 18 and newer, Deno, Bun.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from clew.api.typescript_wire import WIRE

Json = Mapping[str, Any]

_REF = "#/components/schemas/"
_SIMPLE = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
_NAME = re.compile(r"[A-Za-z_$][\w$]*")


def module(document: Json) -> str:
    """The whole module."""
    faces: dict[str, list[str]] = {}
    used: set[str] = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for call in operation.get("x-clew-calls", ()):
                face, name = call["name"].split(".")
                told = _method(name, method.upper(), path, operation, call, used)
                faces.setdefault(face, []).append(told)
    schemas: Json = document["components"]["schemas"]
    shapes = [_interface(name, schemas[name]) for name in sorted(_reached(used, schemas))]
    classes = [
        f"export class {_title(face)} {{\n  constructor(private readonly wire: Wire) {{}}\n\n"
        + "\n\n".join(methods)
        + "\n}"
        for face, methods in faces.items()
    ]
    fields = "\n".join(f"  readonly {face}: {_title(face)};" for face in faces)
    made = "\n".join(f"    this.{face} = new {_title(face)}(wire);" for face in faces)
    root = (
        f"export class Clew {{\n{fields}\n\n  constructor(options: Options) {{\n"
        f"    const wire = new Wire(options);\n{made}\n  }}\n}}"
    )
    return "\n\n".join([WIRE.rstrip(), *shapes, *classes, root]) + "\n"


def _method(name: str, http: str, path: str, operation: Json, call: Json, used: set[str]) -> str:
    parameters: Sequence[Json] = operation.get("parameters", ())
    names = [p["name"] for p in parameters if p["in"] == "path"]
    arguments = [f"{_camel(one)}: string" for one in names]
    fields = ["method: " + _quoted(http), f"path: `{_path(path)}`"]
    queries = [p for p in parameters if p["in"] == "query"]
    body, needed = _body(operation, call, used)
    if body == "file":
        arguments.append("file: BodyInit")
        fields.append("file")
    elif body is not None:
        arguments.append(f"body: {body}" + ("" if needed else " = {}"))
        always: Json = call.get("fixed", {})
        fixed = "".join(f", {key}: {_literal(value)}" for key, value in always.items())
        fields.append(f"body: {{ ...body{fixed} }}" if fixed else "body")
    if queries:
        arguments.append(f"query: {_query(queries, used)} = {{}}")
        fields.append("query")
    if call.get("endless"):
        fields.append("endless: true")
    answer = call["answer"]
    returned = {
        "none": "Promise<void>",
        "file": "Promise<ReadableStream<Uint8Array>>",
        "events": "AsyncGenerator<Part, void>",
    }.get(answer) or f"Promise<{_answer(operation, used)}>"
    headers = [p["name"] for p in parameters if p["in"] == "header"]
    about = " ".join((operation.get("description") or "").split("\n\n")[0].split())
    if headers:
        about += f" Headers: {', '.join(headers)}."
    lines = [f"  /** {about.replace('*/', '')} */"] if about else []
    lines.append(f"  {name}({', '.join([*arguments, 'sending?: Sending'])}): {returned} {{")
    lines.append(f"    return this.wire.{answer}({{ {', '.join(fields)} }}, sending);")
    return "\n".join([*lines, "  }"])


def _body(operation: Json, call: Json, used: set[str]) -> tuple[str | None, bool]:
    """The type of what is sent, and whether anything must be."""
    asked = operation.get("requestBody")
    if asked is None:
        return None, False
    content = asked["content"]
    if "application/json" not in content:
        return "file", True
    schema = content["application/json"]["schema"]
    # An optional body is a union with null.
    choices = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    told = " | ".join(_type(one, used) for one in choices)
    if fixed := call.get("fixed"):
        told = f"Omit<{told}, {' | '.join(_quoted(name) for name in fixed)}>"
    return told, bool(asked.get("required"))


def _answer(operation: Json, used: set[str]) -> str:
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        if str(status).startswith("2") and "application/json" in content:
            return _type(content["application/json"]["schema"], used)
    return "unknown"


def _query(queries: Sequence[Json], used: set[str]) -> str:
    told: list[str] = []
    for one in queries:
        schema: Json = one["schema"]
        kind = _type(schema, used)
        if one["name"] == "metadata":
            kind = "Record<string, unknown>"  # JSON in a string, over the wire
        told.append(f"{_key(one['name'])}?: {kind}")
    return f"{{ {'; '.join(told)} }}"


def _interface(name: str, schema: Json) -> str:
    about = schema.get("description")
    lines = [f"/** {' '.join(str(about).split()).replace('*/', '')} */"] if about else []
    if "properties" not in schema:
        return "\n".join([*lines, f"export type {_plain(name)} = {_type(schema, set())};"])
    needed = schema.get("required", ())
    lines.append(f"export interface {_plain(name)} {{")
    for key, value in schema["properties"].items():
        lines.append(f"  {_key(key)}{'' if key in needed else '?'}: {_type(value, set())};")
    return "\n".join([*lines, "}"])


def _type(schema: Json, used: set[str]) -> str:
    if ref := schema.get("$ref"):
        used.add(str(ref).removeprefix(_REF))
        return _plain(str(ref).removeprefix(_REF))
    for many in ("anyOf", "oneOf"):
        if many in schema:
            return " | ".join(dict.fromkeys(_type(one, used) for one in schema[many]))
    if "enum" in schema:
        return " | ".join(_literal(value) for value in schema["enum"])
    if "const" in schema:
        return _literal(schema["const"])
    kind = schema.get("type")
    if kind == "array":
        inner = _type(schema.get("items", {}), used)
        return f"({inner})[]" if " " in inner else f"{inner}[]"
    if kind == "object":
        more = schema.get("additionalProperties")
        inner = _type(cast("Json", more), used) if isinstance(more, dict) else "unknown"
        return f"Record<string, {inner}>"
    return _SIMPLE.get(cast("str", kind), "unknown")


def _reached(used: set[str], schemas: Json) -> set[str]:
    """These schemas, and what they are made of."""
    found: set[str] = set()
    waiting = list(used)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _refs(schemas[name])
    return found


def _refs(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in cast("Json", schema).items():
            if key == "$ref":
                yield str(value).removeprefix(_REF)
            else:
                yield from _refs(value)
    elif isinstance(schema, list):
        for one in cast("list[Any]", schema):
            yield from _refs(one)


def _path(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: f"${{at({_camel(found[1])})}}", path)


def _plain(name: str) -> str:
    """`clew__api__webhooks__Create` is how FastAPI tells two schemas of a name apart."""
    return "".join(_title(part) for part in name.removeprefix("clew__api__").split("__"))


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(_title(part) for part in rest)


def _key(name: str) -> str:
    return name if _NAME.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else str(value)
