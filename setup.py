"""Wires the native core into setuptools; everything else is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["src/bsipatch/_core/build.py:ffibuilder"],
    # one wheel for every CPython from 3.11 on
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
