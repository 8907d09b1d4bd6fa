"""Build the one compiled module: the system calls that Python's ``os`` does not have."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [Extension("lbcore._posix", ["src/lbcore/_posix.pyx"], extra_compile_args=["-O2"])],
        language_level=3,
    )
)
