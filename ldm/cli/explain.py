"""jsonargparse's nested error messages, brought down to the one line that helps."""

import inspect
import pydoc
import re

NOISE = (
    "Does not validate against any of the Union subtypes",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Given value",
)


def explain(message: str) -> str:
    """The innermost cause, with the class or key that it belongs to and, for an unknown option, those there are."""
    lines = [line.strip(" -") for line in message.splitlines()]
    lines = [line for line in lines if line and not line.startswith(NOISE)]
    last_class = max((i for i, line in enumerate(lines) if line.startswith("Problem with given class_path")), default=0)
    heart = " ".join(lines[last_class:])
    unknown = re.search(r"Problem with given class_path '([\w.]+)': Option '([^']+)' is not accepted", heart)
    if unknown:
        class_path, option = unknown.groups()
        return f"{class_path} has no option '{option}': it has {', '.join(options(class_path))}."
    heart = re.sub(r"Option '([^']+)' is not accepted", r"there is no key '\1': take it out, or see --help", heart)
    heart = re.sub(r'Parser key "config": File does not exist: \'(.*)\'', r"there is no file \1: check -c", heart)
    heart = re.sub(r"the following arguments are required: ", "the config lacks ", heart).replace("fit.", "")
    heart = re.sub(r"Problem with given class_path '([\w.]+)': Parser key \"([\w.]+)\": ", r"\2 of \1: ", heart)
    heart = re.sub(r"Expected an? <class '(\w+)'>\. Got value: (.*)", r"expected \1, not \2", heart)
    heart = re.sub(r"^Parser key \"([\w.]+)\": ", r"\1: ", heart)
    return heart or message


def options(class_path: str) -> list[str]:
    """The arguments of a class or function that a config names."""
    named = pydoc.locate(class_path)
    return [name for name in inspect.signature(named).parameters if name != "self"] if callable(named) else []
