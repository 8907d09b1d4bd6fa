"""Build the compiled modules: the loop over changelog records, and what calls liblustreapi (without its headers)."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [
            Extension(f"lb_lustre.{name}", [f"src/lb_lustre/{name}.pyx"], extra_compile_args=["-O2"])
            for name in ("_records", "_lustreapi")
        ],
        include_path=["src"],
        language_level=3,
    )
)
