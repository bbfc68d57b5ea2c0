"""What is corrected in Horovod's sources before they are built, and why.

Each correction names one string in one file of the hash-checked release. A string that is not there is an error: the
release is pinned, so it means that the table is wrong. What depends on the torch of the build is a name between two @.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Correction:
    """One string replaced in one file of the sources."""

    file: str
    old: str
    new: str
    reason: str


CORRECTIONS = (
    Correction(
        "horovod/runner/mpi_run.py",
        "return list(_OMPI_FLAGS), list(_NO_BINDING_ARGS), _OMPI_IMPL",
        "return list(_OMPI_FLAGS), ['--bind-to none', '--map-by slot'], _OMPI_IMPL",
        "Open MPI 5's launcher takes these two options with two dashes only, and reads '-bind-to' as the name of the "
        "program to start; every earlier Open MPI accepts two as well",
    ),
    Correction(
        "horovod/common/gloo/gloo_controller.cc",
        "global_ranks_.reserve(size_);",
        "global_ranks_.resize(size_);",
        "memory that is only reserved is written to and the list stays empty, so that under Gloo the stall check never "
        "names a missing rank and never ends a job that hangs",
    ),
    Correction(
        "horovod/common/gloo/gloo_context.cc",
        "assert(global_context.IsEnabled());",
        "assert(global_context.IsEnabled());\n  gloo_iface_ = global_context.gloo_iface_;",
        "all collectives but the first meeting took the network of the host's own name, whatever HOROVOD_GLOO_IFACE "
        "said: a name that is not known ended every rank by SIGSEGV, and one that means 127.0.1.1 keeps hosts apart",
    ),
    Correction(
        "third_party/gloo/gloo/transport/tcp/device.cc",
        "GLOO_ENFORCE_NE(rv, -1);",
        'GLOO_ENFORCE_EQ(rv, 0, attr.hostname, ": ", gai_strerror(rv));',
        "getaddrinfo's errors are other numbers than -1: memory that was never set was read (SIGSEGV)",
    ),
    Correction(
        "CMakeLists.txt",
        "set(CMAKE_CXX_STANDARD 14)",
        "set(CMAKE_CXX_STANDARD @CXX_STANDARD@)",
        "torch's headers need a later C++ than C++14",
    ),
    Correction(
        "horovod/torch/CMakeLists.txt",
        "    set(CMAKE_CXX_STANDARD 14)",
        "    set(CMAKE_CXX_STANDARD @CXX_STANDARD@)",
        "torch's headers need a later C++ than C++14",
    ),
    Correction(
        "CMakeLists.txt",
        "-pthread -fPIC -Wall -ftree-vectorize",
        "-pthread -fPIC -Wall -ftree-vectorize -Wno-template-body -include cstdint -include stdexcept -include string",
        "with gcc 13 and later the standard headers do not include these three for each other any more; gcc 15 and "
        "later refuse a mistake in flatbuffers' templates that nothing uses",
    ),
    Correction(
        "CMakeLists.txt",
        "set(CMAKE_CXX_EXTENSIONS OFF)",
        "set(CMAKE_CXX_EXTENSIONS OFF)\n"
        'set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)\nset(CMAKE_INSTALL_RPATH "$ENV{RUN_PATH}")',
        "the library would look for others in folders of the build and of this environment, and fit no other",
    ),
    Correction(
        "CMakeLists.txt",
        'set(CMAKE_CUDA_RUNTIME_LIBRARY "Static")',
        'set(CMAKE_CUDA_RUNTIME_LIBRARY "Shared")',
        "torch has loaded CUDA's runtime as a shared library; a second, static one has a state of its own",
    ),
    Correction(
        "horovod/common/ops/cuda/CMakeLists.txt",
        "add_library(compatible_horovod_cuda_kernels cuda_kernels.cu)",
        "add_library(compatible_horovod_cuda_kernels EXCLUDE_FROM_ALL cuda_kernels.cu)",
        "the kernels for the C++ library's layout before 2015 were compiled for every GPU and not used",
    ),
    Correction(
        "cmake/Modules/FindPytorch.cmake",
        'string(TOUPPER "${Pytorch_CUDA}" Pytorch_CUDA)',
        'string(TOUPPER "${Pytorch_CUDA}" Pytorch_CUDA)\nif(NOT HAVE_CUDA)\n    set(Pytorch_CUDA FALSE)\nendif()',
        "a CUDA build of torch made every build one for GPUs, asked for or not",
    ),
    Correction(
        "horovod/torch/cuda_util.cc",
        'dlopen("libcuda.so", RTLD_LAZY)',
        'dlopen("libcuda.so.1", RTLD_LAZY)',
        "containers and hosts without development packages have the driver under this name only",
    ),
    Correction(
        "setup.py",
        "else 'RelWithDebInfo'",
        "else 'Release'",
        "nine tenths of the library were debugging symbols",
    ),
)


def apply(
    sources: Path, corrections: tuple[Correction, ...] = CORRECTIONS, values: Mapping[str, str] | None = None
) -> None:
    """Correct the files in an unpacked source folder; several corrections to one file follow each other.

    values: what stands for each name between two @. Raises ValueError for a string that is missing, before anything
    changes.
    """
    files = {each.file for each in corrections}
    texts = {file: (sources / file).read_text(encoding="utf-8") for file in files if (sources / file).exists()}
    for each in corrections:
        if each.old not in texts.get(each.file, ""):
            raise ValueError(f"{each.file} has no {each.old!r}: this is not the Horovod the corrections are for")
        new = each.new
        for name, value in (values or {}).items():
            new = new.replace(f"@{name}@", value)
        texts[each.file] = texts[each.file].replace(each.old, new)
    for file, text in texts.items():
        (sources / file).write_text(text, encoding="utf-8")
