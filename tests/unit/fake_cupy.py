"""A module `cupy` without a GPU: what the project uses of CuPy, launched by the PTX executor.

As strict as the original where that matters: modules load lazily and once for each device, a kernel's arguments are
what a driver would read, shared memory beyond 48 KB must be asked for, a stray access poisons the process. `log` has
every operation with the device and the stream on which it ran.
"""

from __future__ import annotations

import ctypes
import itertools
from collections import Counter
from math import inf
from pathlib import Path
from types import SimpleNamespace
from weakref import WeakValueDictionary

import numpy as np

from ioaware_kernels import golden
from ioaware_kernels.ptx import findings, grid
from ioaware_kernels.ptx.context import POISON, Options
from ioaware_kernels.ptx.global_memory import SHIFT, Buffer
from ioaware_kernels.ptx.parse import parse

FREE_SHARED_BYTES = 48 * 1024


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


class CUDADriverError(RuntimeError):
    """As CuPy's."""


class CompileException(Exception):
    """As CuPy's, which is no RuntimeError."""


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class Array:
    """An array on the device."""

    def __init__(self, fake, values):
        given = np.array(values, order="C")
        words = given.reshape(-1).view(np.int32)
        self.buffer = Buffer("", words, np.ones(words.shape, np.uint8))
        self.host = self.buffer.words.view(given.dtype).reshape(given.shape)  # nobody but the fake may look at it
        self.shape, self.strides, self.itemsize = given.shape, given.strides, given.itemsize
        number = next(n for n in itertools.count(1) if n not in fake.memory)
        self.data = SimpleNamespace(ptr=number << SHIFT)
        fake.memory[number] = self


class Device:
    """A GPU."""

    def __init__(self, fake, number):
        self.fake, self.number = fake, number
        self.attributes, self.compute_capability = fake.attributes, fake.capability

    def __enter__(self):
        self.before, self.fake.device = self.fake.device, self.number
        return self

    def __exit__(self, *_):
        self.fake.device = self.before
        self.fake.check()

    def synchronize(self):
        self.fake.note("context")


class Stream:
    """A stream of the device that is current when it is made; -1 for the default stream of whatever device."""

    def __init__(self, fake, device_id):
        self.fake, self.device_id = fake, device_id

    def __enter__(self):
        assert self.device_id in (-1, self.fake.device), "a stream of another device"
        self.fake.streams.append(self)
        return self

    def __exit__(self, *_):
        self.fake.streams.pop()

    def synchronize(self):
        self.fake.note("synchronize")
        self.fake.check()


class RawKernel:
    """A kernel: loaded on each device when that first needs it."""

    def __init__(self, fake, name, load):
        self.fake, self.name, self.load = fake, name, load
        self.most_dynamic = Counter()

    @property
    def kernel(self):
        """The parsed kernel."""
        return self.load()[self.name]

    @property
    def max_threads_per_block(self):
        self.kernel  # noqa: B018 what CuPy does, too
        return self.fake.max_threads_per_block

    @property
    def max_dynamic_shared_size_bytes(self):
        return self.most_dynamic[self.fake.device] or FREE_SHARED_BYTES

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        assert self.kernel
        self.most_dynamic[self.fake.device] = size

    def __call__(self, grid_, block, arguments, *, shared_mem=0):
        fake, kernel = self.fake, self.kernel
        assert all(type(extents) is tuple for extents in (grid_, block, arguments))
        asked = self.max_dynamic_shared_size_bytes
        if kernel.static_shared_bytes + shared_mem > FREE_SHARED_BYTES and shared_mem > asked:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        assert len(arguments) == len(kernel.params), "the driver reads as many as the kernel has"
        raw = {p.name: read(a, p.size) for p, a in zip(kernel.params, arguments, strict=True)}
        fake.launches.append(SimpleNamespace(kernel=kernel.name, arguments=raw, shared_mem=shared_mem, asked=asked))
        fake.note("launch")
        fake.run(kernel, grid_, block, raw, shared_mem)


def read(argument, size):
    """The bytes of an argument as the driver reads them: CuPy hands it an address, and nobody checks the size."""
    if isinstance(argument, Array):
        raw = argument.data.ptr.to_bytes(8, "little")
    elif isinstance(argument, np.ndarray):
        assert argument.size == 1, "CuPy passes arrays of size one only"
        raw = ctypes.string_at(argument.__array_interface__["data"][0], argument.nbytes)
    else:
        raw = {int: np.int64, float: np.float64}.get(type(argument), type(argument))(argument).tobytes()
    assert len(raw) == size, f"the driver reads {size} bytes where {len(raw)} are"
    return raw


class FakeCupy:
    """The module. A test sets what the machine is like, and reads what was done."""

    ndarray = Array

    def __init__(self, devices=1):
        self.devices, self.device, self.driver, self.capability = devices, 0, 12_020, "80"
        self.max_threads_per_block = 1024
        self.refuses = {}  # the operation and the exception that it raises
        self.attributes = {"MaxSharedMemoryPerBlockOptin": 101_376, "MaxGridDimX": 2**31 - 1}
        self.attributes |= {"MaxGridDimY": 65_535, "MaxGridDimZ": 65_535}
        self.reverses_after = inf  # launches; thread blocks run in the opposite order from then on
        self.memory = WeakValueDictionary()  # by number: what nobody holds any more is gone
        self.modules, self.broken = {}, None
        self.launches, self.log, self.raw_modules = [], [], []
        null = Stream(self, -1)
        self.streams = [null]
        self.cuda = SimpleNamespace(
            Device=self._device, Stream=lambda **_: Stream(self, self.device), get_current_stream=self._stream,
            compiler=SimpleNamespace(CompileException=CompileException),
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError, is_hip=False, getDeviceCount=self._count,
                driverGetVersion=lambda: self.driver,
            ),
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------- the machine
    def note(self, what):
        """Log an operation, or refuse it."""
        if what in self.refuses:
            raise self.refuses[what]
        self.log.append((what, self.device, self.streams[-1]))

    def check(self):
        """What CUDA says at the next call after a kernel went wrong, and for ever after."""
        if self.broken:
            raise self.broken

    def _count(self):
        self.note("count")
        return self.devices

    def _device(self, number=None):
        return Device(self, self.device if number is None else number)

    def _stream(self):
        return self.streams[-1]

    def run(self, kernel, grid_, block, raw, shared_mem):
        """Launch on the executor, whose buffer n lies at (n + 1) << SHIFT."""
        self.check()
        freed = Buffer("", np.zeros(0, np.int32), np.zeros(0, np.uint8))
        buffers = [
            self.memory[n].buffer if n in self.memory else freed for n in range(1, 1 + max(self.memory, default=0))
        ]
        options = Options(reverse=len(self.launches) > self.reverses_after)
        result = grid.launch(kernel, grid_, block, raw, buffers, shared_mem, options=options)
        if any(found.what == findings.OUT_OF_BOUNDS for found in result.findings):
            self.broken = CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    # ---------------------------------------------------------------------------------------- the module
    def asarray(self, values):
        self.note("upload")
        return Array(self, values)

    def empty(self, shape, dtype):
        return Array(self, np.full(shape, POISON, np.int32).view(dtype))

    def asnumpy(self, array):
        self.note("download")
        self.check()
        return array.host.copy()

    def RawModule(self, *, path=None, code=None, options=()):
        assert (path is None) != (code is None)
        assert type(options) is tuple
        self.raw_modules.append(SimpleNamespace(path=path, code=code, options=options))
        load = (lambda: self._loaded(path)) if path else (lambda: self._compiled(code, options))

        def get_function(name):
            kernel = RawKernel(self, name, load)
            assert kernel.kernel  # loads now, on the current device
            return kernel

        return SimpleNamespace(get_function=get_function)

    def RawKernel(self, code, name, options=()):
        return self.RawModule(code=code, options=options).get_function(name)

    def _loaded(self, path):
        if (self.device, path) not in self.modules:
            self.note("load")
            self.modules[self.device, path] = parse(Path(path).read_text(encoding="utf-8"))
        return self.modules[self.device, path]

    def _compiled(self, code, options):
        """As golden PTX, if that came of the same source and constants."""
        key = self.device, code, options
        if key not in self.modules:
            self.note("compile")
            wanted = {option for option in options if option.startswith("-D")}
            build = next(b for b in golden.builds() if set(b.definitions) == wanted and b.implementation.source == code)
            self.modules[key] = parse(golden.load(build))
        return self.modules[key]
