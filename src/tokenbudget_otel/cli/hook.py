"""What `tokenbudget run` puts in front of a program: each Python process imports this as its `sitecustomize`.

The file is copied into a folder of its own, which is on PYTHONPATH for the program and all of its children.
It imports next to nothing: metering starts when a process imports an SDK (or tokenbudget_otel itself), so that
processes which call no LLM pay a millisecond or two. Whatever goes wrong here is noted for the report, and the
program runs on as if we were not there.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib_external import PathFinder  # importlib.machinery's, without importing that

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing alone would cost as much as the rest of the interpreter's start
    from typing import Any

_SDKS = frozenset(
    (
        "aiobotocore.client", "anthropic", "botocore.client", "cohere", "google.genai", "google.generativeai", "groq",
        "litellm", "mistralai.azure.client", "mistralai.client", "mistralai.gcp.client", "ollama", "openai", "together",
        "tokenbudget_otel", "voyageai",
    )
)  # fmt: skip
"""What has metering started by being imported: what the instrumentors hook, and we ourselves."""

_started = False


class _Watch:
    """Finds nothing itself, but has metering started right after one of the SDKs has been imported."""

    def __init__(self, run: str) -> None:
        self._run = run

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _SDKS or _started:
            return None
        for finder in list(sys.meta_path):
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self._run)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """The module's own loader, and a step after it."""

    def __init__(self, loader: Any, run: str) -> None:
        self._loader, self._run = loader, run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        # From here on the module has its own loader, as it would have without us.
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _start(self._run)


def _start(run: str, instrumented: bool = False) -> None:
    global _started
    if _started:
        return
    _started = True
    try:
        from tokenbudget_otel.cli import metered

        metered.start(run, instrumented)
    except Exception as error:
        _note(run, error)


def _note(run: str, error: Exception) -> None:
    text = f"{sys.executable} could not be metered ({type(error).__name__}: {error})."
    if isinstance(error, ModuleNotFoundError):
        text += " Install tokenbudget-otel in the environment of that Python."
    try:
        with open(os.path.join(run, f"{os.getpid()}.note"), "w", encoding="utf-8") as file:  # noqa: PTH118, PTH123
            file.write(text)
    except OSError:
        pass


def _chain(own: str) -> bool:
    """Run the sitecustomize that ours stands before. Whether that is OpenTelemetry's, which instruments."""
    spec = PathFinder.find_spec("sitecustomize", [entry for entry in sys.path if entry != own])
    if spec is None or spec.loader is None:
        return False
    module = type(sys)("sitecustomize")
    module.__spec__, module.__file__, module.__loader__ = spec, spec.origin, spec.loader
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)  # what it raises, Python reports as it always does
    return "auto_instrumentation" in (spec.origin or "")


def _hook() -> None:
    own = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    run = os.path.dirname(own)  # noqa: PTH120
    try:
        os.close(os.open(os.path.join(run, "seen"), os.O_CREAT | os.O_WRONLY, 0o600))  # noqa: PTH118
    except OSError:
        run = ""  # the run has ended: nobody will read what this process counts
    instrumented = False
    try:
        instrumented = _chain(own)
    finally:
        # The program's sys.path is what it would be without us; its children get ours by PYTHONPATH.
        sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != own]  # noqa: PTH100
        if run:
            # Exporters have to be there before the program's first span.
            if os.path.exists(os.path.join(run, "early")) or not _SDKS.isdisjoint(sys.modules):  # noqa: PTH110, PTH118
                _start(run, instrumented)
            else:
                sys.meta_path.insert(0, _Watch(run))


if __name__ == "sitecustomize":
    _hook()
