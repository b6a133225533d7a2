"""What torch.compile adds to deployed inference, and how long compiling takes."""

import time

from .cases import Setting, compare, inference, ours
from .results import Result, Spread
from .timing import time_in_turn


def compiled_inference(arch: str, setting: Setting) -> list[Result]:
    """Time deployed inference under ``torch.compile``, in turn with the same model without it.

    Args:
        arch: architecture.
        setting: of the benchmark.

    Returns:
        Both times, and that of the first call, which compiles.

    Raises:
        ValueError: if ``torch.compile`` does not work here, for example for want of a C++ compiler.
    """
    model = ours().convert(ours().build(arch))
    works = {"repvgg_mm": inference(model, ours(), setting), "torch.compile": inference(model, ours(), setting, True)}
    start = time.perf_counter()
    try:
        works["torch.compile"]()
    except Exception as error:  # whatever its backend raises
        raise ValueError(f"torch.compile does not work here: {error}") from error
    seconds = Spread.of([time.perf_counter() - start])
    times = time_in_turn(works, setting.repeats, setting.device)
    results = compare("compiled inference", arch, times, "repvgg_mm")
    return [*results, Result("compiled inference", arch, "compiling, once", seconds, "s")]
