"""Compiling a call graph of hundreds of kernels as one program.

Numba links, optimises and emits every function's whole subtree again for each caller: quadratic work. Inside `whole_program()` the
libraries of callees stay as they were lowered; the entry point links each of them once, optimises once and emits once. Outside of
it nothing changes, for this package's kernels or anybody else's.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from numba import _dynfunc
from numba.core import codegen
from numba.core.cpu import CPUContext
from numba.core.registry import cpu_target

NEVER_CALLED = ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p).value
_depth = 0
_apart: set[str] = set()


def active() -> bool:
    """Whether a whole program is being compiled."""
    return _depth > 0


@contextmanager
def whole_program() -> Iterator[None]:
    """What is compiled in here is linked by its entry point."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def keep_apart(function: Any) -> None:
    """Never inline a kernel: what is rare must not take registers from the path that leads past it."""
    parts = [*function.__module__.split("."), *function.__qualname__.split(".")]
    _apart.add("_ZN" + "".join(f"{len(part)}{part}" for part in parts))


def _is_apart(name: str) -> bool:
    return any(name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in "BE" for prefix in _apart)


class ProgramLibrary(codegen.JITCodeLibrary):
    """A code library that, made inside `whole_program`, is finished only when its entry point's address is asked for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waiting = active()
        self._shared_module: Any = None

    @classmethod
    def _unserialize(cls, owner: Any, state: Any) -> Any:
        """From the cache comes finished code, whoever asks."""
        global _depth
        depth, _depth = _depth, 0
        try:
            return super()._unserialize(owner, state)
        finally:
            _depth = depth

    def finalize(self) -> None:
        if self.waiting:
            self._finalized = True
        else:
            super().finalize()

    def _get_module_for_linking(self) -> Any:
        if self.waiting and self._shared_module is None:
            module = self._final_module.clone()
            for function in module.functions:
                if not function.is_declaration and function.linkage == llvm.Linkage.external:
                    function.linkage = "weak_odr"  # the linker drops a linkonce that nothing linked so far refers to
            self._shared_module = module
        return super()._get_module_for_linking()

    def finish(self) -> None:
        """Link everything that is reachable, once, and make machine code of it."""
        if not self.waiting:
            return
        home = {}
        for library in self._reachable():
            self._reload_init.update(library._reload_init)
            for function in library._get_module_for_linking().functions:
                if not function.is_declaration:
                    home[function.name] = library
        # Linking a module brings in only those functions of it that are wanted by then: go on until nothing is wanted.
        while wanted := sorted(
            function.name for function in self._final_module.functions if function.is_declaration and function.name in home
        ):
            for library in dict.fromkeys(home.pop(name) for name in wanted):
                self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self.waiting = False
        self._shared_module = None
        for function in self._final_module.functions:
            if not function.is_declaration and _is_apart(function.name):
                function.add_function_attribute("noinline")
            if not function.is_declaration and function.linkage in (llvm.Linkage.linkonce_odr, llvm.Linkage.weak_odr):
                function.linkage = "internal"  # nobody links a program again: what is inlined everywhere can go
        self._optimize_final_module()
        self._final_module.verify()
        self._finalize_final_module()

    def _reachable(self) -> list[Any]:
        """The libraries that this one's functions may call."""
        seen: dict[Any, None] = {}
        order = list(self._linking_libraries)
        while order:
            library = order.pop()
            if library is self or library in seen:
                continue
            seen[library] = None
            if isinstance(library, ProgramLibrary) and library.waiting:
                order.extend(library._linking_libraries)
        return list(seen)

    def get_pointer_to_function(self, name: str) -> int:
        self.finish()
        return int(super().get_pointer_to_function(name))

    def serialize_using_object_code(self) -> Any:
        self.finish()
        return super().serialize_using_object_code()


_ordinary_executable = CPUContext.get_executable


def _executable(self: Any, library: Any, fndesc: Any, env: Any) -> Any:
    """Kernels inside a program are never called from Python: their entry in the dispatcher's table only has to be their own.
    The entry point is: asking for its address makes the machine code.
    """
    if isinstance(library, ProgramLibrary) and library.waiting and not _has_wrapper(library, fndesc):
        return _dynfunc.make_function(fndesc.lookup_module(), fndesc.qualname, "", NEVER_CALLED, env, (library,))
    return _ordinary_executable(self, library, fndesc, env)


def _has_wrapper(library: ProgramLibrary, fndesc: Any) -> bool:
    """Whether Python can call the function: kernels inside a program are compiled without a wrapper."""
    return any(function.name == fndesc.llvm_cpython_wrapper_name for function in library._final_module.functions)


CPUContext.get_executable = _executable
cpu_target.target_context.codegen()._library_class = ProgramLibrary
