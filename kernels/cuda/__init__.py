"""The kernels of ``kernels.cpu`` on an NVIDIA GPU, under the same names in files so named: see ``device.Cuda``.

Loading them needs no CuPy; opening the device does.
"""
