"""Build the compiled modules: the system calls that Python's ``os`` does not have, and many small files at once."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [
            Extension(f"lbcore.{name}", [f"src/lbcore/{name}.pyx"], extra_compile_args=["-O2"])
            for name in ("_posix", "_bulk")
        ],
        include_path=["src"],
        language_level=3,
    )
)
