"""What belongs to the whole process and is not a plugin's to set: others run in it."""

from __future__ import annotations

import ast

from .source import Found, Source, outside_functions

EVER = {
    "torch.set_default_dtype",
    "torch.set_default_device",
    "torch.set_default_tensor_type",
    "torch.set_num_threads",
    "torch.use_deterministic_algorithms",
    "torch.set_float32_matmul_precision",
    "os.chdir",
    "os.putenv",
    "os.environ.update",
    "os.environ.setdefault",
    "signal.signal",
    "locale.setlocale",
    "multiprocessing.set_start_method",
    "logging.basicConfig",
    "logging.disable",
}
"""Calls that are wrong wherever they stand."""
AT_IMPORT = {
    "torch.manual_seed",
    "torch.set_grad_enabled",
    "numpy.random.seed",
    "random.seed",
    "warnings.simplefilter",
    "warnings.filterwarnings",
    "sys.path.append",
    "sys.path.insert",
}
"""Calls that are wrong at module and class level."""
OWNED = ("os.environ", "torch.backends", "sys.path", "sys.modules")
"""What nothing is assigned to."""


def settings_of_the_process(source: Source) -> Found:
    """Calls and assignments that set something for everybody."""
    at_import = {id(node) for node in outside_functions(source.tree)}
    for call, name in source.calls():
        if name in EVER or (name in AT_IMPORT and id(call) in at_import):
            yield call, f"calls {name}"
    for node in ast.walk(source.tree):
        targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else []
        for target in targets:
            name = source.dotted(target.value if isinstance(target, ast.Subscript) else target)
            if any(name == owned or name.startswith(f"{owned}.") for owned in OWNED):
                yield target, f"sets {ast.unparse(target)}"
