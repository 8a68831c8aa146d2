"""NVIDIA's driver in plain Python, under Numba's own code: memory is the host's, kernels are noted and not run.
It knows the driver's functions as far as Numba and tinyvae call them; `install` puts it in the real one's place."""

import ctypes

import numpy as np

OUT_OF_MEMORY, UNSUPPORTED_PTX = 2, 222
CAPABILITY = {75: 9, 76: 0}  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


class FakeDriver:
    """calls: (function, what matters of its arguments) in order. memory: address → bytes that are lent.
    fail: function → error code, for functions that are to fail."""

    def __init__(self):
        self.calls, self.memory, self.fail = [], {}, {}
        self.images, self.functions, self.last = {}, {}, 100
        self.context, self.recording = None, False

    def __getattr__(self, name):
        """Every function of the driver; most do nothing. Numba asks for cuX_v2 first, which is not there."""
        if not name.startswith("cu") or (name.endswith("_v2") and not hasattr(type(self), f"do_{name}")):
            raise AttributeError(name)

        def call(*arguments):
            do = getattr(self, f"do_{name}", None)
            if self.fail.get(name):
                self.calls.append((name, "fails"))
                return self.fail[name]
            noted = do(*arguments) if do else None
            self.calls.append((name, noted))
            return 0

        call.__name__ = name
        self.__dict__[name] = call
        return call

    def names(self):
        """The functions called since the last time, without the questions that Numba asks all the time."""
        names = [name for name, _ in self.calls if not name.startswith("cuCtx")]
        self.calls.clear()
        return names

    def handle(self, out):
        self.last += 1
        out._obj.value = self.last
        return self.last

    # ------------------------------------------------------------------------------------------ the card

    def do_cuDriverGetVersion(self, out):
        out._obj.value = 12080

    def do_cuDeviceGetCount(self, out):
        out._obj.value = 1

    def do_cuDeviceGet(self, out, number):
        out._obj.value = number

    def do_cuDeviceGetAttribute(self, out, which, device):
        out._obj.value = CAPABILITY.get(which, 1)

    def do_cuDeviceGetName(self, text, length, device):
        text.value = b"Fake GPU"

    def do_cuDeviceTotalMem_v2(self, out, device):
        out._obj.value = 3 << 30

    def do_cuGetErrorString(self, code, out):
        out._obj.value = b"made to fail"

    def do_cuDevicePrimaryCtxRetain(self, out, device):
        self.handle(out)

    def do_cuCtxGetCurrent(self, out):
        out._obj.value = self.context

    def do_cuCtxGetDevice(self, out):
        out._obj.value = 0

    def do_cuCtxPushCurrent(self, context):
        self.context = context.value

    # ------------------------------------------------------------------------------------------ memory

    def do_cuMemGetInfo(self, free, total):
        free._obj.value, total._obj.value = 1 << 30, 3 << 30

    def do_cuMemAlloc(self, out, size):
        raw = np.full(size + 512, 0xCD, np.uint8)
        out._obj.value = raw.ctypes.data - raw.ctypes.data % -512
        self.memory[out._obj.value] = raw
        return size

    def do_cuMemFree(self, pointer):
        del self.memory[getattr(pointer, "value", pointer)]
        return "while recording" if self.recording else None

    def copy(self, to, source, size, stream):
        ctypes.memmove(to, source, size)
        return size, stream.value

    do_cuMemcpyHtoDAsync = do_cuMemcpyDtoHAsync = do_cuMemcpyDtoDAsync = copy

    def do_cuStreamCreate(self, out, flags):
        self.handle(out)

    def do_cuStreamSynchronize(self, stream):
        return stream.value

    # ------------------------------------------------------------------------------------------ kernels

    def do_cuLinkCreate(self, count, options, values, out):
        self.handle(out)

    def do_cuLinkAddData(self, link, kind, data, size, *rest):
        self.ptx = ctypes.create_string_buffer(ctypes.string_at(data, size))

    def do_cuLinkComplete(self, link, image, size):
        image._obj.value, size._obj.value = ctypes.addressof(self.ptx), len(self.ptx)

    def do_cuModuleLoadDataEx(self, out, image, *rest):
        self.handle(out)

    def do_cuModuleGetFunction(self, out, module, name):
        self.functions[self.handle(out)] = name.decode()

    def do_cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra):
        return self.functions[function.value], (gx, gy, gz), (bx, by, bz), stream.value

    # ------------------------------------------------------------------------------------------ graphs

    def do_cuStreamBeginCapture_v2(self, stream, mode):
        self.recording = True
        return stream.value, mode.value

    def do_cuStreamEndCapture(self, stream, out):
        self.recording = False
        return stream.value, self.handle(out)

    def do_cuGraphInstantiateWithFlags(self, out, graph, flags):
        return graph.value, self.handle(out)

    def do_cuGraphLaunch(self, graph, stream):
        return graph.value, stream.value

    def do_cuGraphDestroy(self, graph):
        return graph.value

    def do_cuGraphExecDestroy(self, graph):
        return graph.value


def install():
    """Puts a FakeDriver under Numba and tinyvae in this process, for good. Before anything has used the GPU."""
    from numba.cuda.cudadrv import driver as numbas

    from tinyvae.device import driver as ours
    from tinyvae.device import gpu, machine

    fake = FakeDriver()
    numbas.driver.lib, numbas.driver.is_initialized, numbas.driver.initialization_error = fake, True, None
    numbas._logger = numbas.make_logger()
    for module in (gpu, machine):
        module.find_driver = lambda: ours.Driver(fake)
    return fake
