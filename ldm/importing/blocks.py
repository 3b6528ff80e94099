"""Objects as a config describes them."""

import inspect
from typing import Any


def block(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def plain(value: Any) -> Any:
    """A value of a config: an object of ours as its class and arguments."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not type(value).__module__.startswith("ldm."):
        return value
    kind = type(value)
    arguments = {name: plain(getattr(value, name)) for name in inspect.signature(kind).parameters}
    return block(f"{kind.__module__}.{kind.__qualname__}", **arguments)
